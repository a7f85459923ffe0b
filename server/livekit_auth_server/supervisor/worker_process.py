"""One worker process, as the supervisor sees it. Its own side of the line: supervisor/worker_side.py."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.operating_system import MISUSE, deferred_signals
from livekit_auth_server.process.readiness import Readiness
from livekit_auth_server.supervisor.protocol import (
    LONGEST,
    Failed,
    Heartbeat,
    Message,
    MetricsPage,
    Order,
    Unreadable,
    decode,
    encode_order,
)

if TYPE_CHECKING:
    from pathlib import Path

STALE = 1.4  # seconds without a message after which a worker isn't ready
SCRAPE = 1.0  # seconds that a worker has to hand over its metrics
SILENCE = 10  # seconds without a message after which a worker counts as hung: twenty heartbeats
FIRST_WORD = 60  # seconds that a new process has for its first message
SLOW = 30  # seconds after which a warning says that the start takes long
_REAP = 0.01  # seconds between looks at a process whose line has ended
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What every worker is started with: the settings file, the address with its port, and how to log."""

    config: Path
    listen: str
    as_json: bool = False

    def command(self, number: int, descriptor: int) -> list[str]:
        """`-P` keeps the current folder out of where Python looks for code, as the installed program does."""
        options = {"--config": self.config, "--listen": self.listen, "--number": number, "--line": descriptor}
        words = [word for name, value in options.items() for word in (name, str(value))]
        program = [sys.executable, "-P", "-m", "livekit_auth_server.cli", "worker"]
        return [*program, *words, *(["--json"] if self.as_json else [])]


class Worker:
    """A started worker. Its `number` is unique among live workers, and is in logs, metrics and its audit file's name.

    `failure` is why it couldn't serve, in its own words.
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.pid = process.pid
        self.serving_since: float | None = None
        self._process = process
        self._readiness = Readiness(("starting",))
        self._heard = 0.0
        self._age = self._silent = 0  # seconds that the supervisor has counted
        self._spoke = self._killed = False
        self.failure: ConfigError | None = None
        self._changed = asyncio.Event()
        self._scrape: asyncio.Future[str] | None = None
        self._writer: asyncio.StreamWriter
        self._ended, self._left = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None]

    @classmethod
    async def spawn(cls, options: WorkerOptions, number: int) -> Worker:
        """Starts a process. Raises OSError. When it fails or is cancelled, no process is left."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _started(options.command(number, theirs.fileno()), theirs.fileno())
            except BaseException:
                ours.close()
                raise
        worker = cls(number, process)
        try:
            reader, worker._writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST)
        except BaseException:
            process.kill()
            process.wait()
            ours.close()
            raise
        worker._watching = asyncio.create_task(worker._watch(reader))
        return worker

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended; negative for a signal."""
        return self._process.returncode

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._ended.is_set()

    def readiness(self) -> Readiness:
        """Whether it is ready, with its number before each reason."""
        state = self._readiness
        if self._ended.is_set():
            state = Readiness(("ended",))
        elif self.serving_since is not None and time.monotonic() - self._heard > STALE:
            state = Readiness(("doesn't answer",), state.warnings)
        return Readiness(
            *(tuple(f"worker {self.number}: {text}" for text in texts) for texts in (state.reasons, state.warnings))
        )

    async def until_serving(self) -> bool:
        """Waits until it serves or ends; returns whether it serves. Raises ConfigError for a bad file or setting."""
        while self.serving_since is None and not self._ended.is_set():
            await self._next_change()
        if self.serving_since is None and self.failure is not None:
            raise self.failure
        if self.serving_since is None and self.code == MISUSE:
            raise ConfigError("worker", "can't be started; its output says why")
        return self.serving_since is not None

    async def until_ready(self) -> bool:
        """Waits until it is ready or ends; returns whether it is ready. Raises ConfigError as `until_serving` does."""
        if not await self.until_serving():
            return False
        while not self.readiness().ready and not self._ended.is_set():
            await self._next_change()
        return not self._ended.is_set()

    async def ended(self) -> None:
        """Returns when the process is gone."""
        await self._ended.wait()

    async def left(self) -> None:
        """Returns when the process is gone, or was told to stop."""
        await self._left.wait()

    async def metrics(self) -> str | None:
        """Its metrics in Prometheus' text format; None when it hands over none in time."""
        if self._ended.is_set() or self.serving_since is None:
            return None
        self._scrape = asyncio.get_running_loop().create_future()
        self._order(Order.METRICS)
        with suppress(TimeoutError, asyncio.CancelledError):
            return await asyncio.wait_for(self._scrape, SCRAPE)
        return None

    def end_if_hung(self, patience: float) -> bool:
        """Kills it when it was silent or didn't serve for too long, and returns whether it did. Call this every second.

        `patience` is how many seconds it has until it serves. Seconds in which the supervisor itself didn't run don't
        count, so that a suspended machine isn't taken for hung workers.
        """
        self._age += 1
        self._silent += 1
        if self._killed or self._ended.is_set():
            return False
        starting = self.serving_since is None and not self._left.is_set()
        if starting and self._age == SLOW:
            _log.warning("worker takes long to start", number=self.number, pid=self.pid, seconds=self._age)
        if self._silent > (SILENCE if self._spoke else FIRST_WORD):
            why = "no heartbeat"
        elif starting and self._age > patience:
            why = "it doesn't serve"
        else:
            return False
        _log.error("worker hangs and is killed", number=self.number, pid=self.pid, why=why, seconds=self._silent)
        self._signal(kill=True)
        return True

    def reload(self) -> None:
        """Tells it to read its files again. One that is starting does so once it serves."""
        self._order(Order.RELOAD)

    async def stop(self, patience: float) -> None:
        """Sends SIGTERM, and SIGKILL after `patience` seconds. Returns when the process is gone."""
        self._left.set()
        self._signal(kill=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._ended.wait()
        self._signal(kill=True)
        await self._ended.wait()

    def _signal(self, *, kill: bool) -> None:
        self._killed = self._killed or kill
        self._process.kill() if kill else self._process.terminate()

    def _order(self, order: Order) -> None:
        self._writer.write(encode_order(order))

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Handles its messages until it is gone. Kills it when it sends something else."""
        if unreadable := await self._listen(reader):
            _log.error("worker sent an unreadable line and is killed", number=self.number, why=unreadable.why)
            self._signal(kill=True)
        while self._process.poll() is None:  # noqa: ASYNC110 - its line has ended, so it goes or is killed
            await asyncio.sleep(_REAP)
        self._writer.close()
        if self._scrape is not None:
            self._scrape.cancel()
        for event in (self._ended, self._left, self._changed):
            event.set()

    async def _listen(self, reader: asyncio.StreamReader) -> Unreadable | None:
        """Handles every message until the line ends. Returns early with the first line that isn't one."""
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                message = decode(line)
                if isinstance(message, Unreadable):
                    return message
                self._hear(message)
        except ConnectionError:
            pass  # it is going
        except ValueError:
            return Unreadable("a line that is too long")
        return None

    def _hear(self, message: Message) -> None:
        self._spoke, self._silent = True, 0
        match message:
            case Failed():
                self.failure = message.error()
            case MetricsPage(text):
                if self._scrape is not None and not self._scrape.done():
                    self._scrape.set_result(text)
            case Heartbeat(phase, readiness):
                self._heard, self._readiness = time.monotonic(), readiness
                if phase == "serving" and self.serving_since is None:
                    self.serving_since = self._heard
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _started(command: list[str], line: int) -> subprocess.Popen[bytes]:
    """Starts the process. Not by asyncio, which needs a thread for each in Python 3.11 and loses it without one."""
    with deferred_signals():
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(line,))  # noqa: S603 - our own program
