"""When a self-check runs: at the start, after each reload of policy or keys, and again when one couldn't run.

Guarantees: a check is of the state in force when it begins; a request during a check ends that check and begins
another; processes that share a settings folder check one after the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.selfcheck import process
from livekit_auth_server.selfcheck.report import NotRun
from livekit_auth_server.selfcheck.task import Task
from livekit_auth_server.selfcheck.verdict import REASONS, shortened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from livekit_auth_server.selfcheck.report import Report
    from livekit_auth_server.selfcheck.verdict import Verdict
    from livekit_auth_server.service.state import InForce, State

RETRY = 300.0  # seconds until a check that couldn't run is tried again
_PATIENCE = 120.0  # seconds that a check waits for those of other processes
_LOOK = 0.1  # seconds between looks whether they are over
_log = structlog.get_logger("livekit_auth_server")


class Schedule:
    """Checks what is in force, and tells the verdict. Processes with the same `folder` take turns."""

    def __init__(
        self,
        in_force: InForce,
        verdict: Verdict,
        folder: Path,
        run: Callable[[bytes], Awaitable[Report | NotRun]] = process.run,
        *,
        retry: float = RETRY,
    ) -> None:
        self._in_force, self._verdict, self._folder, self._run, self._retry = in_force, verdict, folder, run, retry
        self._wanted = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Requests a check of what is in force now. A check that is under way is of something older, and ends."""
        self._wanted.set()
        if self._checking is not None:
            self._checking.cancel()

    async def run(self) -> None:
        """Checks on request until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._retry if self._verdict.not_run else None):
                    await self._wanted.wait()
            self._wanted.clear()
            self._checking = asyncio.create_task(self.check())
            try:
                await asyncio.wait({self._checking})
            finally:
                self._checking.cancel()
                await asyncio.wait({self._checking})

    async def check(self) -> None:
        """Makes one check, and logs how it ended."""
        async with _turn(self._folder):
            started = monotonic()
            try:
                task, encoded = await asyncio.to_thread(_encoded, self._in_force.state)
                result = await self._run(encoded)
                self._verdict.record(result, task)
            except Exception:  # noqa: BLE001 - the server goes on without a check
                _log.exception("selfcheck failed unexpectedly")
                self._verdict.not_run = NotRun.CRASHED
                return
            seconds = round(monotonic() - started, 2)
        if isinstance(result, NotRun):
            _log.warning("selfcheck didn't run", why=REASONS[result], retry_in=self._retry)
        elif result.differences:
            _log.error("selfcheck found differences", found=shortened(result, task), seconds=seconds)
        else:
            _log.info("selfcheck passed", tokens=result.tokens, keys=result.keys, seconds=seconds)


def _encoded(state: State) -> tuple[Task, bytes]:
    task = Task.of(state.policy, state.keys)
    return task, task.encode()


@asynccontextmanager
async def _turn(folder: Path) -> AsyncIterator[None]:
    """Holds a lock on the folder, so that workers don't start their children at once.

    Anyone who can read the folder can take the lock, and not every file system has locks: without it the check goes
    ahead after _PATIENCE.
    """
    descriptor = None
    try:
        with suppress(OSError):  # TimeoutError is one
            descriptor = os.open(folder, os.O_RDONLY)
            async with asyncio.timeout(_PATIENCE):
                while not _locked(descriptor):  # noqa: ASYNC110 - nothing tells when a lock is free
                    await asyncio.sleep(_LOOK)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
