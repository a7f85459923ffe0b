"""The line between a worker and its supervisor, with a worker that says what it shouldn't and one whose parts fail."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.readiness import Condition
from livekit_auth_server.supervisor import worker_process as module
from livekit_auth_server.supervisor import worker_side
from livekit_auth_server.supervisor.protocol import MetricsPage
from livekit_auth_server.supervisor.worker_process import FIRST_WORD, SILENCE, Worker, WorkerOptions
from livekit_auth_server.supervisor.worker_side import SupervisorLine

if TYPE_CHECKING:
    import subprocess

HEARTBEAT = b'{"phase": "serving", "state": {"ready": true, "reasons": [], "warnings": []}}\n'


@dataclass(frozen=True, slots=True)
class Script(WorkerOptions):
    """A process that says this on its line and then stays."""

    says: bytes = b""

    def command(self, number: int, descriptor: int) -> list[str]:
        code = f"import os, time\nos.write({descriptor}, {HEARTBEAT + self.says!r})\ntime.sleep(60)  # {number}"
        return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    "says",
    [
        b"5\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"no JSON\n",
        b'{"failed": 1}\n',
        b'{"failed": {}}\n',
        b'{"phase": "serving"}\n',
        b"x" * 4096,
    ],
)
async def test_a_worker_whose_line_makes_no_sense_is_ended_so_that_another_takes_its_place(
    says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 1024)
    worker = await Worker.spawn(Script(Path(), "", says=says), 0)
    try:
        async with asyncio.timeout(5):
            await worker.ended()
        assert worker.gone
        assert not worker.readiness().ready
    finally:
        await worker.stop(1)


@dataclass(frozen=True, slots=True)
class Program(WorkerOptions):
    """A process that runs this, with the number of its line as `line`."""

    code: str = ""

    def command(self, number: int, descriptor: int) -> list[str]:
        return [sys.executable, "-c", f"import os, time; line = {descriptor}; number = {number}\n{self.code}"]


async def spoken(code: str) -> Worker:
    """A worker that runs this, after it has said that it serves."""
    worker = await Worker.spawn(Program(Path(), "", code=f"os.write(line, {HEARTBEAT!r})\n{code}"), 0)
    async with asyncio.timeout(10):
        assert await worker.until_serving()
    return worker


def seconds(worker: Worker, count: int, patience: float = 1000) -> list[int]:
    """After which of so many seconds it was killed."""
    return [second for second in range(1, count + 1) if worker.end_if_hung(patience)]


async def killed(worker: Worker) -> None:
    async with asyncio.timeout(10):
        await worker.ended()
    assert worker.code == -9


@pytest.mark.parametrize("code", ["while True: pass", "os.kill(os.getpid(), 19)", "time.sleep(60)"])
async def test_a_worker_that_says_nothing_for_long_is_killed_once_and_said_to_be(code: str) -> None:
    """Spinning, stopped, or waiting for something that doesn't come."""
    worker = await spoken(code)
    with capture_logs() as lines:
        assert seconds(worker, 3 * SILENCE) == [SILENCE + 1]
    await killed(worker)
    (line,) = lines
    assert (line["event"], line["pid"], line["why"]) == ("worker hangs and is killed", worker.pid, "no heartbeat")


async def test_a_word_in_time_keeps_a_slow_worker() -> None:
    worker = await spoken(f"while True: time.sleep(0.02); os.write(line, {HEARTBEAT!r})")
    try:
        for _ in range(5):
            assert seconds(worker, SILENCE) == []
            before = worker._heard
            async with asyncio.timeout(10):
                while worker._heard == before:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.01)
    finally:
        await worker.stop(1)


async def test_a_process_has_longer_for_its_first_word_and_not_for_ever() -> None:
    worker = await Worker.spawn(Program(Path(), "", code="time.sleep(60)"), 0)
    assert SILENCE < FIRST_WORD
    with capture_logs() as lines:
        assert seconds(worker, 2 * FIRST_WORD) == [FIRST_WORD + 1]
    assert [line["event"] for line in lines] == ["worker takes long to start", "worker hangs and is killed"]
    await killed(worker)


async def test_a_worker_that_lives_and_doesnt_come_to_serve_is_killed_after_the_patience() -> None:
    starting = HEARTBEAT.replace(b"serving", b"starting")
    code = f"while True: time.sleep(0.002); os.write(line, {starting!r})"
    worker = await Worker.spawn(Program(Path(), "", code=code), 0)
    with capture_logs() as lines:
        async with asyncio.timeout(20):
            while not worker.end_if_hung(20):
                heard = worker._heard
                while worker._heard == heard:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.002)
    assert worker._age == 21
    await killed(worker)
    assert lines[0]["why"] == "it doesn't serve"


async def test_one_that_serves_isnt_killed_for_its_age() -> None:
    worker = await spoken("time.sleep(60)")
    assert seconds(worker, SILENCE, patience=2) == []
    await worker.stop(1)


async def test_one_that_is_told_to_go_before_it_serves_has_the_time_of_its_drain() -> None:
    worker = await Worker.spawn(Program(Path(), "", code="time.sleep(60)"), 0)
    worker._left.set()
    assert seconds(worker, 10, patience=2) == []
    await worker.stop(1)


async def test_one_that_has_closed_its_line_and_doesnt_end_is_killed() -> None:
    worker = await spoken("os.close(line); time.sleep(60)")
    assert seconds(worker, 2 * SILENCE) == [SILENCE + 1]
    await killed(worker)


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), asyncio.CancelledError()])
async def test_a_start_that_fails_half_way_leaves_no_process(
    fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a line would serve unseen, and write an audit file that its successor needs."""
    started: list[subprocess.Popen[bytes]] = []
    plain = module._started

    def started_too(command: list[str], line: int) -> subprocess.Popen[bytes]:
        started.append(plain(command, line))
        return started[-1]

    async def fails(**_: object) -> None:
        raise fault

    monkeypatch.setattr(module, "_started", started_too)
    monkeypatch.setattr(asyncio, "open_unix_connection", fails)
    with pytest.raises(type(fault)):
        await Worker.spawn(Program(Path(), "", code="time.sleep(60)"), 0)
    assert started[0].returncode == -9


async def test_starting_a_process_takes_no_thread() -> None:
    """asyncio takes one for each in Python 3.11, and where there is none to be had the process is lost."""
    before = threading.active_count()
    worker = await spoken("time.sleep(60)")
    assert threading.active_count() == before
    await worker.stop(1)
    assert worker.code == -15


async def test_a_process_starts_with_signals_deferred() -> None:
    """So a SIGHUP to the whole group doesn't end it before it has a handler."""
    worker = await spoken("os.kill(os.getpid(), 1); os.kill(os.getpid(), 12); os._exit(7)")
    async with asyncio.timeout(10):
        await worker.ended()
    assert worker.code == 7


async def test_a_worker_that_hasnt_been_heard_for_a_while_isnt_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await spoken("time.sleep(60)")
    assert worker.readiness().ready
    monkeypatch.setattr(module, "STALE", 0.0)
    assert worker.readiness().reasons == ("worker 0: doesn't answer",)
    await worker.stop(1)
    assert worker.readiness().reasons == ("worker 0: ended",)


async def test_one_that_ends_with_the_code_of_misuse_cant_be_started() -> None:
    worker = await Worker.spawn(Program(Path(), "", code="os._exit(2)"), 0)
    with pytest.raises(ConfigError, match=r"^worker: can't be started"):
        await asyncio.wait_for(worker.until_serving(), 10)


async def test_one_that_dies_before_it_serves_just_didnt() -> None:
    worker = await Worker.spawn(Program(Path(), "", code="os._exit(1)"), 0)
    assert await asyncio.wait_for(worker.until_serving(), 10) is False
    assert worker.code == 1


async def test_one_that_doesnt_go_when_it_is_told_to_is_killed() -> None:
    worker = await Worker.spawn(
        Program(
            Path(),
            "",
            code=f"import signal; signal.signal(15, signal.SIG_IGN)\nos.write(line, {HEARTBEAT!r})\ntime.sleep(60)",
        ),
        0,
    )
    assert await asyncio.wait_for(worker.until_serving(), 10)
    await asyncio.wait_for(worker.stop(0.1), 10)
    assert worker.code == -9
    assert not worker.end_if_hung(0)


async def test_orders_arrive_and_metrics_come_back() -> None:
    answer = b'{"metrics": "# page"}\n'
    worker = await spoken(
        f"assert os.read(line, 99) == b'metrics\\n'; os.write(line, {answer!r})\n"
        "assert os.read(line, 99) == b'reload\\n'; os._exit(7)"
    )
    assert await worker.metrics() == "# page"
    worker.reload()
    await asyncio.wait_for(worker.ended(), 10)
    assert worker.code == 7
    assert await worker.metrics() is None


async def test_metrics_that_dont_come_in_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCRAPE", 0.05)
    worker = await spoken("time.sleep(60)")
    assert await worker.metrics() is None
    worker._hear(MetricsPage("late"))  # of the one before: nobody waits for it
    await worker.stop(1)


class Line:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_unix_connection(sock=self.ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        self.theirs.close()

    async def heard(self, name: str) -> object:
        async with asyncio.timeout(15):
            while name not in (message := json.loads(await self.reader.readline())):
                pass
            return message[name]


async def test_metrics_and_checks_that_fail_cost_the_worker_neither_its_line_nor_its_orders() -> None:
    """A worker without its line wouldn't go when its supervisor does, and a silent one would be ended for nothing."""
    broken = [True]

    def page() -> bytes:
        if broken:
            raise RuntimeError("a collector's fault")
        return b"# page"

    def reasons() -> list[str]:
        if broken:
            raise RuntimeError("a check's fault")
        return ["disk"]

    reloads: list[int] = []
    with capture_logs():
        async with Line() as line:
            control, condition = SupervisorLine(line.theirs.fileno(), 0), Condition("serving", problems=[reasons])
            running = asyncio.create_task(control.run(condition, page, lambda: reloads.append(1)))
            line.writer.write(b"metrics\nreload\n")
            async with asyncio.timeout(15):
                while not reloads:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.01)
            told = {"ready": False, "reasons": ["readiness check failed; the log has the details"], "warnings": []}
            assert await line.heard("state") == told
            broken.clear()
            line.writer.write(b"metrics\n")
            assert await line.heard("metrics") == "# page"
            while await line.heard("state") == told:
                pass
            assert await line.heard("state") == {"ready": False, "reasons": ["disk"], "warnings": []}
            line.theirs.close()
            line.writer.close()
            await asyncio.wait_for(running, 3)
            assert control.gone


@pytest.fixture
def unbound(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """This process doesn't end with the one that started it; says whether it was to."""
    bound: list[bool] = []
    monkeypatch.setattr(worker_side, "end_with_parent", lambda: bound.append(True))
    return bound


async def test_while_it_loads_it_says_so_though_no_event_loop_runs(unbound: list[bool]) -> None:
    async with Line() as line:
        control = SupervisorLine(line.theirs.fileno(), 0)
        control.begin()
        assert unbound
        for _ in range(3):
            assert await line.heard("phase") == "starting"
        running = asyncio.create_task(control.run(Condition("serving"), lambda: b"", lambda: None))
        async with asyncio.timeout(15):
            while await line.heard("phase") != "serving":
                pass
        for _ in range(3):
            assert await line.heard("phase") == "serving"
        line.theirs.close()
        line.writer.close()
        await asyncio.wait_for(running, 3)


async def test_a_worker_whose_supervisor_has_ended_before_it_began_doesnt_start(unbound: list[bool]) -> None:
    line = Line()
    line.ours.close()
    with line.theirs, pytest.raises(ConfigError, match=r"^worker: its supervisor is gone$"):
        SupervisorLine(line.theirs.fileno(), 0).begin()
    assert unbound, "what ends later must end it"


async def test_a_supervisor_that_doesnt_read_costs_a_worker_bounded_memory() -> None:
    async with Line() as line:
        control = SupervisorLine(line.theirs.fileno(), 0)
        reader: Any = line.reader
        reader._transport.pause_reading()
        running = asyncio.create_task(control.run(Condition("serving"), lambda: b"x" * 500_000, lambda: None))
        line.writer.write(b"metrics\n" * 50)
        waiting: list[int] = []
        async with asyncio.timeout(10):
            while len(waiting) < 20:
                await asyncio.sleep(0.01)
                if control._writer is not None:
                    waiting.append(control._writer.transport.get_write_buffer_size())
        assert 0 < max(waiting) < worker_side._BACKLOG + 600_000
        running.cancel()
        await asyncio.wait({running})


async def test_orders_that_a_worker_doesnt_know_are_left_out() -> None:
    """Its supervisor may be of another version."""
    reloads: list[int] = []
    async with Line() as line:
        control = SupervisorLine(line.theirs.fileno(), 0)
        running = asyncio.create_task(control.run(Condition("serving"), lambda: b"", lambda: reloads.append(1)))
        line.writer.write(b"\xff\nrelod\n\nreload\n")
        async with asyncio.timeout(15):
            while not reloads:  # noqa: ASYNC110 - a test
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})


async def test_a_worker_that_cant_serve_says_why() -> None:
    async with Line() as line:
        SupervisorLine(line.theirs.fileno(), 0).fail(ConfigError("policy.yaml", "bad", 3))
        assert await line.heard("failed") == {"where": "policy.yaml", "line": 3, "message": "bad"}
