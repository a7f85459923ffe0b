"""The Dockerfile's steps, run here: there needn't be a Docker engine. What it can't show is the base image itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.chart import GID, UID

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
BASE = Path(os.path.realpath(sys.executable))  # outside any environment


@dataclass(frozen=True)
class Step:
    """An instruction, its continued lines joined."""

    name: str
    value: str


def stages() -> list[list[Step]]:
    """The instructions after each FROM."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    steps = [Step(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [index for index, step in enumerate(steps) if step.name == "FROM"]
    return [steps[start:end] for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)]


def exec_form(name: str) -> list[str]:
    """An instruction of the last stage in exec form, as a list."""
    (step,) = [step for step in stages()[-1] if step.name == name]
    return json.loads(step.value)


@contextmanager
def built() -> Iterator[Image]:
    """Runs the build stage's steps in a folder that everybody may read, and removes it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="livekit-auth-image-"))
    folder.chmod(0o755)
    try:
        image = Image(folder)
        image.build()
        yield image
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Image:
    """What the build stage leaves, in a folder instead of /."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "opt/livekit-auth/bin" / exec_form("ENTRYPOINT")[0]

    def build(self) -> None:
        (self.folder / "opt").mkdir()
        source = self.folder / "src"
        source.mkdir()
        for step in stages()[0]:
            if step.name == "COPY":
                *names, target = step.value.split()
                for name in names:
                    self._copy(name, source / target if len(names) == 1 else source / target / Path(name).name)
            elif step.name == "RUN":
                self._run(step.value, source)

    def _copy(self, name: str, target: Path) -> None:
        """What of this is in git, so that nothing that happens to lie here comes along."""
        listed = subprocess.run(["git", "ls-files", "-z", name], cwd=ROOT, capture_output=True, text=True, check=True)
        for path in filter(None, listed.stdout.split("\0")):
            to = target / Path(path).relative_to(name)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, to)

    def _run(self, command: str, source: Path) -> None:
        here = command.replace("/opt/", f"{shlex.quote(str(self.folder))}/opt/")
        here = re.sub(r"\bpython -m venv\b", f"{shlex.quote(str(BASE))} -m venv", here)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        done = subprocess.run(
            ["/bin/sh", "-c", here], cwd=source, env=kept, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"


def confined(command: list[str | Path], writable: list[Path]) -> list[str | Path]:
    """The command as in a pod: another user, no rights, the whole file system read-only but for `writable`.

    Only root can do so. Without root the command runs as it is, which says less: as a user that owns the files.
    """
    if os.geteuid() != 0:
        return command
    binds = "".join(f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(path))} && " for path in writable)
    # Every file system that can be written, in a name space of the command's own.
    seal = (
        "for at in $(awk '$4 ~ /(^|,)rw(,|$)/ {print $2}' /proc/self/mounts); do case \" $WRITABLE \" in "
        '*" $at "*) ;; *) mount -o remount,bind,ro "$at" 2>/dev/null || true ;; esac; done; '
    )
    drop = f"exec setpriv --reuid={UID} --regid={GID} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
    script = (
        f"WRITABLE={shlex.quote(' '.join(map(str, writable)))}; {binds}{seal}{drop} -- {shlex.join(map(str, command))}"
    )
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script]
