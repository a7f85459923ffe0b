"""The page about a CA of one's own, command by command, with the real openssl and the real programs."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.deployment import environment
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow  # a server, and a program's start for each call

PAGE = (Path(__file__).resolve().parents[2] / "docs/own-ca.md").read_text()
SERVE = "livekit-auth-server serve"
REFUSED = ("CERTIFICATE_REVOKED", "UNAVAILABLE")
RELOAD = 2.0  # seconds; the page says one, the machine may be busy

# A caller of a CA that has the same name and is in no bundle, made by the page's own commands.
FOREIGN = """\
mkdir -p foreign/ca foreign/web
cp ca/new-ca ca/issue foreign/ca
(cd foreign && ca/new-ca callers-2 && ca/issue callers-2 web/web clientAuth URI:spiffe://example.org/web 7)
livekit-auth whoami --cert foreign/web/web.pem --key foreign/web/web.key
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A block of commands and the lines that its output has, where the page shows some."""

    commands: str
    shown: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether the page shows a refusal."""
        return any(line in REFUSED for line in self.shown)


def steps() -> Iterator[Step]:
    for commands, shown in re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL):
        yield Step(commands, tuple(shown.splitlines()))


STEPS = [*steps(), Step(FOREIGN, ("UNAVAILABLE",))]


def script() -> str:
    """All steps in one shell. The server runs in the background and is ended whatever happens."""
    lines = ["trap 'echo FAILED: $BASH_COMMAND' ERR"]
    for number, step in enumerate(STEPS):
        lines.append(f"echo STEP {number}")
        if SERVE in step.commands:
            lines += [f"{step.commands.rstrip()} 2> server.log &", "server=$!", "trap 'kill $server; wait' EXIT"]
            lines.append("for _ in $(seq 300); do grep -q '\"serving\"' server.log && break; sleep 0.1; done")
        else:
            lines += [step.commands, f"sleep {RELOAD}" if "mv server/" in step.commands else ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each step printed, on either stream."""
    here = script().replace("7443", str(free_port()))
    done = subprocess.run(
        ["bash"],
        input=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path_factory.mktemp("page"),
        env={**environment(), "PYTHONWARNINGS": "default"},
    )
    return re.split(r"^STEP \d+\n", done.stdout, flags=re.MULTILINE)[1:]


def test_the_page_has_its_steps() -> None:
    text = "".join(step.commands for step in STEPS)
    assert len(STEPS) > 12
    assert sum(step.fails for step in STEPS) == 3
    assert all(command in text for command in (SERVE, "livekit-auth token", "-revoke", "-gencrl"))


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_each_step_does_what_the_page_shows(outputs: list[str], number: int) -> None:
    step, output = STEPS[number], outputs[number]
    assert ("FAILED: " in output) == step.fails, output
    assert [line for line in step.shown if line not in output] == [], output
