"""A fixed number of places, each with a worker that serves. Dead workers are replaced; a rolling restart replaces all.

Numbers go from 0 to the number of places, one more than there are places: a rolling restart runs a new worker beside
the old one, and each needs its own audit file. The successor of a dead worker has the same number.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.readiness import Readiness
from livekit_auth_server.supervisor.backoff import Backoff
from livekit_auth_server.supervisor.worker_process import Worker, WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from livekit_auth_server.process.readiness import Phase

START = 300.0  # seconds that a new worker has to serve before it counts as hung
READY = 60.0  # seconds that it has to become ready before a rolling restart is aborted
MARGIN = 5.0  # seconds after the drain in which a worker closes its files
_SECOND = 1.0
_log = structlog.get_logger("livekit_auth_server")


@dataclass(slots=True, eq=False)
class _Place:
    """Where one worker serves. Hold the lock to put another worker there."""

    worker: Worker
    backoff: Backoff = field(default_factory=Backoff)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pool:
    """`count` workers. `drain` is how long calls in flight may take, `start` how long a start may take, in seconds."""

    def __init__(
        self,
        options: WorkerOptions,
        count: int,
        drain: float,
        spawn: Callable[[WorkerOptions, int], Awaitable[Worker]] = Worker.spawn,
        *,
        start: float = START,
    ) -> None:
        self.restarts = self.hung = 0
        self.phase: Phase = "starting"
        self._options, self._count, self._drain, self._spawn_worker = options, count, drain, spawn
        self._start = start
        self._guarding: asyncio.Task[None] | None = None
        self._starting: set[int] = set()  # numbers that are taken by a worker in the making
        self._places: list[_Place] = []
        self._workers: list[Worker] = []
        self._roll_wanted = asyncio.Event()

    @property
    def live(self) -> Sequence[Worker]:
        """Every worker that hasn't ended, by number."""
        living = (worker for worker in self._workers if not worker.gone)
        return sorted(living, key=lambda worker: worker.number)

    def readiness(self) -> Readiness:
        """The readiness of all places together. A worker that drains in a rolling restart no longer counts."""
        parts = [place.worker.readiness() for place in self._places]
        own = () if self.phase == "serving" else (self.phase,)
        reasons = (*own, *(text for part in parts for text in part.reasons))
        return Readiness(reasons, tuple(text for part in parts for text in part.warnings))

    def reload(self) -> None:
        """Tells all workers to read their files again."""
        for worker in self.live:
            worker.reload()

    def roll(self) -> None:
        """Requests a rolling restart, which follows one that is under way."""
        self._roll_wanted.set()

    async def start(self) -> None:
        """Starts the workers and returns when they serve. Raises ConfigError when one can't at all, or none does."""
        self._guarding = asyncio.create_task(self._guard())
        try:
            for _ in range(self._count):
                self._places.append(_Place(await self._spawn()))
        except OSError as error:
            raise ConfigError("workers", f"no process can be started: {error}") from None
        served = await asyncio.gather(*(place.worker.until_serving() for place in self._places))
        if not any(served):
            codes = sorted({str(place.worker.code) for place in self._places})
            raise ConfigError("workers", f"no worker served; exit code {', '.join(codes)} (negative for a signal)")
        self.phase = "serving"
        listen = self._options.listen
        port = int(listen.rpartition(":")[2])
        _log.info("supervising", workers=self._count, listen=listen, port=port, pids=[one.pid for one in self.live])

    async def run(self) -> None:
        """Keeps the workers going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._roll_on_request())
            for place in self._places:
                tasks.create_task(self._keep(place))

    async def stop(self) -> None:
        """Drains all workers and returns when they are gone."""
        self.phase = "draining"
        await asyncio.gather(*(worker.stop(self._drain + MARGIN) for worker in self.live))
        if self._guarding is not None:
            self._guarding.cancel()

    async def _guard(self) -> None:
        """Kills workers that hang. `run` replaces them."""
        while True:
            await asyncio.sleep(_SECOND)
            self.hung += sum(worker.end_if_hung(self._start) for worker in self.live)

    async def _spawn(self, wanted: int | None = None) -> Worker:
        free = set(range(self._count + 1)) - {worker.number for worker in self.live} - self._starting
        number = wanted if wanted in free else min(free)
        self._starting.add(number)
        try:
            worker = await self._spawn_worker(self._options, number)
        finally:
            self._starting.discard(number)
        self._workers = [*self.live, worker]
        return worker

    async def _keep(self, place: _Place) -> None:
        """Replaces the place's worker whenever it dies."""
        while True:
            worker = place.worker
            await worker.left()
            if place.worker is not worker:
                continue
            served = time.monotonic() - worker.serving_since if worker.serving_since is not None else 0.0
            pause = place.backoff.pause(served)
            self._report(worker, served, pause)
            await asyncio.sleep(pause)
            while not await self._replaced(place, worker):  # noqa: ASYNC110 - nothing tells when processes can be had
                await asyncio.sleep(place.backoff.pause(0.0))

    async def _replaced(self, place: _Place, worker: Worker) -> bool:
        """Replaces this worker, unless that was done. Returns False when no process can be started now."""
        async with place.lock:
            if place.worker is worker:
                try:
                    place.worker = await self._spawn(worker.number)
                except OSError as error:  # the next try comes later
                    _log.error("worker can't be started", problem=str(error))
                    return False
                self.restarts += 1
            return True

    def _report(self, worker: Worker, served: float, pause: float) -> None:
        failure = str(worker.failure) if worker.failure is not None else ""
        _log.error(
            "worker died",
            number=worker.number,
            pid=worker.pid,
            code=worker.code,
            why=failure,
            served=round(served, 1),
            next_in=round(pause, 2),
        )

    async def _roll_on_request(self) -> None:
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            began = time.monotonic()
            _log.info("rolling restart")
            for place in self._places:
                if not await self._replace(place):
                    break
            else:
                _log.info("rolling restart done", seconds=round(time.monotonic() - began, 2))

    async def _replace(self, place: _Place) -> bool:
        """Starts a new worker beside the old one, and drains the old one once the new one is ready."""
        async with place.lock:
            new = await self._new()
            if new is None:
                return False
            old, place.worker = place.worker, new
        await old.stop(self._drain + MARGIN)
        return True

    async def _new(self) -> Worker | None:
        """A new worker that is ready. Logs an error and returns None when it doesn't become ready."""
        try:
            worker = await self._spawn()
        except OSError as error:
            _log.error("rolling restart aborted: no worker can be started", problem=str(error))
            return None
        why = "it ended"
        try:
            async with asyncio.timeout(READY):
                if await worker.until_ready():
                    return worker
        except TimeoutError:
            why = f"it isn't ready after {READY:g} s: {'; '.join(worker.readiness().reasons)}"
        except ConfigError as error:
            why = str(error)
        _log.error("rolling restart aborted; existing workers keep running", number=worker.number, why=why)
        await worker.stop(MARGIN)
        return None
