"""The systemd unit: systemd takes it, it gives few rights, and the server serves with no more than those."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit_auth.v1 import auth_service_pb2
from support.deployment import Deployment, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/livekit-auth.service"
EXPOSURE = 13  # tenths: systemd 252 says 1.2
KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])
LAUNCHER = Path(__file__).parent / "under_unit.py"


def setting(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_takes_it(tmp_path: Path) -> None:
    """With a program that is there: where the server is installed is the reader's."""
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_its_exposure_low() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:]


def test_it_is_stopped_by_sigterm_with_time_to_drain() -> None:
    assert setting("KillSignal") == ["SIGTERM"]
    assert int(setting("TimeoutStopSec")[0]) >= 30 + 10  # the default of `drain`
    assert setting("ExecReload") == ["/bin/kill -HUP $MAINPID"]


def test_its_user_is_the_one_that_sysusers_makes() -> None:
    assert UNIT.with_suffix(".sysusers").read_text().splitlines()[-1].split()[:2] == ["u", *setting("User")]


def test_the_user_is_taken_by_systemd_sysusers(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(UNIT.with_suffix(".sysusers"))]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "etc/passwd").read_text().startswith("livekit-auth:x:")


def system_calls() -> list[str]:
    """What SystemCallFilter leaves, from systemd's own lists."""
    allowed: set[str] = set()
    for line in setting("SystemCallFilter"):
        names = set().union(*(members(name) for name in line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return sorted(allowed)


def members(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    shown = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in shown.stdout.splitlines()[1:]]
    return set().union(*(members(line) for line in lines if line and not line.startswith("#")))


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, selfcheck="enforce")
    deployment.write(extra="audit: {path: audit, required: true}\n")
    deployment.start(under=[sys.executable, str(LAUNCHER), " ".join(system_calls())])
    yield deployment
    deployment.stop()


def test_the_server_serves_under_its_filter_and_its_memory_rule(sealed: Deployment) -> None:
    request = auth_service_pb2.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
    assert sealed.caller("spiffe://example.org/web").IssueToken(request, timeout=10).token
    assert '"event":"selfcheck passed"' in sealed.log
    assert sealed.stop() == 0


def test_the_filter_filters() -> None:
    """So that the test above means something: a call outside the list fails."""
    code = "import os, sys\ntry: os.chroot('/')\nexcept PermissionError: sys.exit(7)"
    command = [sys.executable, str(LAUNCHER), " ".join(system_calls()), sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=False, env=environment()).returncode == 7


@pytest.mark.skipif(KERNEL < (6, 3), reason="PR_SET_MDWE needs Linux 6.3; systemd has its own way on older ones")
def test_memory_that_can_be_written_is_never_executed() -> None:
    code = "import mmap, sys\ntry: mmap.mmap(-1, 4096, prot=7)\nexcept OSError: sys.exit(7)"
    command = [sys.executable, str(LAUNCHER), " ".join(system_calls()), sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=False, env=environment()).returncode == 7
