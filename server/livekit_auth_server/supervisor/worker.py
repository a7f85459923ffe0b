"""One worker process, as the supervisor sees it. The line to it: adapters/control.py."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from asyncio.subprocess import DEVNULL
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from livekit_auth_server.adapters.readiness import Readiness
from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.terminal import MISUSE

if TYPE_CHECKING:
    from pathlib import Path

STALE = 1.4  # seconds without a word after which a worker counts as one that doesn't answer
SCRAPE = 1.0  # seconds that a worker has to hand over its metrics
_LONGEST = 16 * 1024 * 1024  # bytes of one message
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Orders:
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
    """A worker that was started. `number` is its own among those that live: in logs, metrics, its audit file's name.

    `failure` is what it said of itself when it couldn't serve.
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.pid = process.pid
        self.serving_since: float | None = None
        self._process = process
        self._readiness = Readiness(("starting",))
        self._heard = 0.0
        self.failure: ConfigError | None = None
        self._changed = asyncio.Event()
        self._scrape: asyncio.Future[str] | None = None
        self._writer: asyncio.StreamWriter
        self._ended, self._left = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None]

    @classmethod
    async def spawn(cls, orders: Orders, number: int) -> Worker:
        """Starts a process. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *orders.command(number, theirs.fileno()), stdin=DEVNULL, pass_fds=(theirs.fileno(),)
                )
            except BaseException:
                ours.close()
                raise
        worker = cls(number, process)
        reader, worker._writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST)
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
        """How it stands, with its number before each reason."""
        state = self._readiness
        if self._ended.is_set():
            state = Readiness(("ended",))
        elif self.serving_since is not None and time.monotonic() - self._heard > STALE:
            state = Readiness(("doesn't answer",), state.warnings)
        return Readiness(
            *(tuple(f"worker {self.number}: {text}" for text in texts) for texts in (state.reasons, state.warnings))
        )

    async def until_serving(self) -> bool:
        """Whether it came to serve, or else ended. Raises ConfigError where it says that a file or setting is bad."""
        while self.serving_since is None and not self._ended.is_set():
            await self._next_change()
        if self.serving_since is None and self.failure is not None:
            raise self.failure
        if self.serving_since is None and self.code == MISUSE:
            raise ConfigError("worker", "can't be started; what it wrote says why")
        return self.serving_since is not None

    async def until_ready(self) -> bool:
        """Likewise, and until it is ready."""
        if not await self.until_serving():
            return False
        while not self.readiness().ready and not self._ended.is_set():
            await self._next_change()
        return not self._ended.is_set()

    async def ended(self) -> None:
        """Returns when the process is gone."""
        await self._ended.wait()

    async def left(self) -> None:
        """Returns when the process is gone, or has been asked to go."""
        await self._left.wait()

    async def metrics(self) -> str | None:
        """Its metrics in Prometheus' text format; None when it hands over none in time."""
        if self._ended.is_set() or self.serving_since is None:
            return None
        self._scrape = asyncio.get_running_loop().create_future()
        self._order("metrics")
        with suppress(TimeoutError, asyncio.CancelledError):
            return await asyncio.wait_for(self._scrape, SCRAPE)
        return None

    def reload(self) -> None:
        """Has it read its files again; one that is starting does so once it serves."""
        self._order("reload")

    async def stop(self, patience: float) -> None:
        """SIGTERM, and SIGKILL after so many seconds; returns when the process is gone."""
        self._left.set()
        self._signal(kill=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._ended.wait()
        self._signal(kill=True)
        await self._ended.wait()

    def _signal(self, *, kill: bool) -> None:
        with suppress(ProcessLookupError):
            self._process.kill() if kill else self._process.terminate()

    def _order(self, name: str) -> None:
        self._writer.write(name.encode() + b"\n")

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Hears what it says until it is gone. One that makes no sense is ended: it would never be heard again."""
        try:
            while line := await reader.readline():
                self._hear(orjson.loads(line))
        except ConnectionError:
            pass  # it is going
        except Exception as error:  # noqa: BLE001 - too long, no JSON, or not what a worker says
            _log.error("a worker can't be understood and is ended", number=self.number, error=type(error).__name__)
            self._signal(kill=True)
        await self._process.wait()
        self._writer.close()
        if self._scrape is not None:
            self._scrape.cancel()
        for event in (self._ended, self._left, self._changed):
            event.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self.failure = ConfigError(**message["failed"])
        elif "metrics" in message:
            if self._scrape is not None and not self._scrape.done():
                self._scrape.set_result(message["metrics"])
        else:
            self._heard, self._readiness = time.monotonic(), Readiness.of(message["state"])
            if message["phase"] == "serving" and self.serving_since is None:
                self.serving_since = self._heard
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
