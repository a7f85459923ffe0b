"""Reloading while the server runs: each part of what is in force is read again when its files change.

Guarantees: each part is reloaded completely or not at all, so a file that can't be used leaves the last good one in
force, and an error is logged; files are read and compiled in a thread and put in force on the event loop, between two
calls; no part waits for another, so a policy that takes long to compile doesn't delay a deny-list; no failure here
stops the server.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.watch import fingerprint, notify, places
from livekit_auth_server.process.operating_system import out_of_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from livekit_auth_server.files.watch import Fingerprint, Places
    from livekit_auth_server.reload.metrics import ReloadMetrics

    Facts = Mapping[str, object]  # what to log of something that was put in force
    Apply = Callable[[], Facts]  # puts what was loaded in force

TICK = 0.5  # seconds between looks where no notification comes
SETTLED = 0.05  # seconds without a change before files are read
SETTLING = 0.5  # seconds after which they are read anyway
SECOND_LOOK = 0.3  # seconds before a file that can't be used is reported: it may be half-written
RETRY = 30.0  # seconds between tries of files that can't be used and don't change; TICK where none could be opened

# Seconds after which a compiling thread lets the event loop run. With Python's default of 5 ms, a third as many calls
# are answered while a large policy is compiled, and the p99 latency is five times as long.
SWITCH = 0.0005

_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of configuration, its files, and how to read it.

    `load` runs in a thread. It returns what puts the result in force, which runs on the event loop and returns what to
    log. `depends` returns what else the part was made from: when that is another object, the part is read again.
    """

    kind: str
    paths: tuple[Path, ...]
    load: Callable[[], Apply]
    depends: Callable[[], object] = lambda: None

    def followed_by(self, then: Callable[[], None]) -> Part:
        """The part, with `then` called after each time that what was loaded was put in force."""

        def load() -> Apply:
            apply = self.load()

            def apply_and_follow() -> Facts:
                facts = apply()
                then()
                return facts

            return apply_and_follow

        return replace(self, load=load)


@dataclass(slots=True)
class _Kept:
    """A part, the fingerprint of what was last read, and why that couldn't be used."""

    part: Part
    seen: tuple[Fingerprint, object]
    forced: bool = False
    problem: str = ""
    pause: float = RETRY  # seconds until the next try
    retry_at: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    # Its own thread: memory freed in one thread's malloc arena isn't reused by another, and policies are large.
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def look(self) -> tuple[Fingerprint, object]:
        return fingerprint(self.part.paths), self.part.depends()


class Reloader:
    """Keeps the parts up to date. `before` has each kind's fingerprint from before its first load."""

    def __init__(self, parts: Sequence[Part], before: Mapping[str, Fingerprint], metrics: ReloadMetrics) -> None:
        self._kept = [_Kept(part, (before[part.kind], part.depends())) for part in parts]
        self._metrics = metrics

    def request(self) -> None:
        """Reads everything again, changed or not (SIGHUP)."""
        _log.info("reload requested")
        for kept in self._kept:
            kept.forced = True
            kept.wake.set()

    def failing(self) -> list[str]:
        """Why parts run on something older than their files; empty when none does."""
        return [f"{kept.part.kind}: {kept.problem}" for kept in self._kept if kept.problem]

    async def run(self) -> None:
        """Reloads until cancelled."""
        sys.setswitchinterval(SWITCH)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            for kept in self._kept:
                tasks.create_task(self._keep(kept))

    def _wake(self) -> None:
        for kept in self._kept:
            kept.wake.set()

    async def _watch(self) -> None:
        """Watches the folders in which something can change. Links decide which ones these are, so they can change."""
        paths = [path for kept in self._kept for path in kept.part.paths]
        watched: Places = {}
        task: asyncio.Task[None] | None = None
        try:
            while True:
                found = await _places(paths, watched)
                if found != watched:
                    await _cancel(task)
                    watched, task = found, asyncio.create_task(notify(found, self._wake)) if found else None
                    self._wake()
                await asyncio.sleep(TICK)
        finally:
            await _cancel(task)

    async def _keep(self, kept: _Kept) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):  # wait_for in Python 3.11 can lose the cancellation that ends this
                    await kept.wake.wait()
            kept.wake.clear()
            try:
                await self._check(kept)
            except Exception:  # noqa: BLE001 - the next tick tries again
                _log.exception("reloading failed unexpectedly", kind=kept.part.kind)

    async def _check(self, kept: _Kept) -> None:
        """Reloads until what is in force, or known to be unusable, is what the files hold."""
        while True:
            now = await asyncio.to_thread(kept.look)
            due = kept.problem and asyncio.get_running_loop().time() >= kept.retry_at
            if now == kept.seen and not kept.forced and not due:
                return
            kept.forced = False
            await self._reload(kept)

    async def _reload(self, kept: _Kept) -> None:
        problem = await self._try(kept)
        if problem and problem != kept.problem:
            await asyncio.sleep(SECOND_LOOK)
            problem = await self._try(kept)
        kept.retry_at = asyncio.get_running_loop().time() + kept.pause
        self._metrics.reloaded(kept.part.kind, ok=not problem)
        if problem and problem != kept.problem:
            _log.error("reload failed; what was loaded before stays in force", kind=kept.part.kind, error=problem)
        kept.problem = problem

    async def _try(self, kept: _Kept) -> str:
        """Loads the part and puts it in force; returns why it couldn't."""
        kept.seen = await _settled(kept)
        try:
            apply = await asyncio.get_running_loop().run_in_executor(kept.thread, kept.part.load)
            facts = apply()
        except Exception as error:  # noqa: BLE001 - a fault in a loader is no reason to stop serving
            kept.pause = TICK if out_of_files(error) else RETRY
            if isinstance(error, ConfigError):
                return str(error)
            _log.exception("reloading failed unexpectedly", kind=kept.part.kind)
            return "an unexpected fault; the log has the details"
        _log.info("reloaded", kind=kept.part.kind, **facts)
        self._wake_dependants(kept)
        return ""

    def _wake_dependants(self, changed: _Kept) -> None:
        for kept in self._kept:
            if kept is not changed:
                kept.wake.set()


async def _places(paths: Sequence[Path], before: Places) -> Places:
    """The folders to watch, or those of before when finding them fails, such as when no thread can be started."""
    try:
        return await asyncio.to_thread(places, paths)
    except Exception:  # noqa: BLE001 - files are looked at in any case
        _log.exception("can't find the folders to watch")
        return before


async def _settled(kept: _Kept) -> tuple[Fingerprint, object]:
    """The fingerprint once the files stop changing, or after SETTLING."""
    now = await asyncio.to_thread(kept.look)
    for _ in range(int(SETTLING / SETTLED)):
        await asyncio.sleep(SETTLED)
        before, now = now, await asyncio.to_thread(kept.look)
        if now == before:
            break
    return now


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """Ends a task, without mistaking the caller's own cancellation for the task's."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
