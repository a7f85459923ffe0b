"""A child that hangs, crashes, writes garbage or too much: what comes of it, and that no process is left."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from livekit_auth_server.selfcheck.process import run
from livekit_auth_server.selfcheck.report import NotRun, Report, encode
from livekit_auth_server.selfcheck.task import Task
from support.handlers import KEY, SECRET, keys_of
from support.policies import EVERYTHING, policy_of

if TYPE_CHECKING:
    from pathlib import Path

REPORT = Report(3, 2)
READ = "import sys; data = sys.stdin.buffer.read(); "
TASK = b"x" * 1_000_000  # more than a socket holds


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before


async def child(code: str, task: bytes = TASK, seconds: float = 20) -> Report | NotRun:
    return await run(task, program=(sys.executable, "-c", code), seconds=seconds)


async def test_the_whole_task_arrives_and_the_report_comes_back() -> None:
    write = f"sys.stdout.write({encode(REPORT).decode()!r} if len(data) == {len(TASK)} else '')"
    assert await child(READ + write) == REPORT


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (READ + "raise SystemExit(3)", NotRun.CRASHED),
        ("import os; os.kill(os.getpid(), 9)", NotRun.CRASHED),
        ("raise SystemExit(0)", NotRun.CRASHED),
        (READ + "print('{}')", NotRun.UNREADABLE),
        (READ + "sys.stdout.buffer.write(bytes(range(256)))", NotRun.UNREADABLE),
        (READ + "[sys.stdout.write('x' * 1_000_000) for _ in iter(int, 1)]", NotRun.UNREADABLE),
        ("import sys\nwhile True: sys.stdout.write('x' * 1_000_000)", NotRun.TIMEOUT),
        ("import sys\nwhile True: sys.stderr.write('x' * 1_000_000)", NotRun.TIMEOUT),
        (READ + "import time; time.sleep(60)", NotRun.TIMEOUT),
        ("import time; time.sleep(60)", NotRun.TIMEOUT),
        ("import time, os; os.close(1); os.close(0); time.sleep(60)", NotRun.CRASHED),
    ],
)
async def test_a_child_that_does_something_else_is_told_apart(code: str, why: NotRun) -> None:
    seconds = 1.0 if why is NotRun.TIMEOUT else 20.0
    began = time.monotonic()
    assert await child(code, seconds=seconds) is why
    assert time.monotonic() - began < 15


async def test_a_program_that_cannot_be_started_is_told() -> None:
    assert await run(b"", program=("/nonexistent/python",)) is NotRun.NOT_STARTED


async def test_a_check_that_is_cancelled_ends_its_child() -> None:
    running = asyncio.create_task(child("import time; time.sleep(60)", seconds=60))
    while not psutil.Process().children():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_the_real_child_has_limits_and_no_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    task = Task.of(policy_of(EVERYTHING)[0], keys_of(KEY))
    running = asyncio.create_task(run(task.encode()))
    seen: dict[str, object] = {}
    while not running.done():
        for found in psutil.Process().children():
            try:
                if not (command := found.cmdline()):
                    continue  # it has ended
                if found.nice() > psutil.Process().nice():
                    seen |= {
                        "command": command,
                        "core": found.rlimit(psutil.RLIMIT_CORE),
                        "memory": found.rlimit(psutil.RLIMIT_AS)[1],
                    }
                if "livekit_auth_server.selfcheck.child" in command and (environment := found.environ()):
                    seen["environment"] = environment  # once it has hidden its memory, only root can read it
            except psutil.Error:
                pass
        await asyncio.sleep(0.002)
    assert isinstance(running.result(), Report)
    assert seen["environment"]
    assert seen["core"] == (0, 0)
    assert 0 < seen["memory"] < 1 << 30  # type: ignore[operator]
    assert seen["command"] == [sys.executable, "-P", "-m", "livekit_auth_server.selfcheck.child", str(os.getpid())]
    assert SECRET not in repr(seen)
    assert "LIVEKIT_API_SECRET" not in repr(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
async def test_the_memory_of_the_child_is_in_no_core_dump() -> None:
    limited = "from livekit_auth_server.selfcheck.child import _limit; _limit(); import ctypes; "
    dumpable = "assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0; "  # PR_GET_DUMPABLE
    write = f"sys.stdout.write({encode(REPORT).decode()!r})"
    assert await child(limited + dumpable + READ + write) == REPORT


async def test_an_import_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "livekit").mkdir()
    (tmp_path / "livekit" / "__init__.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    task = Task.of(policy_of(EVERYTHING)[0], keys_of(KEY))
    assert await run(task.encode()) is NotRun.NOT_IMPORTED


async def test_a_task_that_takes_too_much_memory_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import livekit_auth_server.selfcheck.task as t\n"
        "t.Task.decode = classmethod(lambda cls, data: bytearray(1 << 31))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert await run(b"{}") is NotRun.OUT_OF_MEMORY
