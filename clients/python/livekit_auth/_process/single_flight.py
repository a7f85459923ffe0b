"""Runs one piece of work at a time in the background: in a task for asyncio, in a thread otherwise.

The work continues when a waiter is cancelled, and other waiters aren't affected. A forked child has neither the task
nor the thread and starts again. tools/unasync.py doesn't generate this pair of classes; both are written by hand.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

from livekit_auth._process import fork

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class AsyncSingleFlight:
    """Runs the work as a task of the running event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        fork.register(self)

    def forked(self) -> None:
        """Called in a forked child: forgets the parent's task."""
        self._task = None

    def start(self, work: Callable[[], Coroutine[object, object, None]]) -> asyncio.Task[None]:
        """Starts the work unless it is already running, and returns at once. The work must not raise."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(work())
        return self._task

    async def join(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Starts the work unless it is already running, and waits until it ends."""
        await asyncio.wait({self.start(work)})


class SingleFlight:
    """Runs the work in a thread."""

    def __init__(self) -> None:
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """Called in a forked child: forgets the parent's thread."""
        self._lock = threading.Lock()
        self._ended: threading.Event | None = None

    def start(self, work: Callable[[], None]) -> threading.Event | None:
        """Starts the work unless it is already running; returns at once an event that is set when it ends.

        The work must not raise. Returns None if no thread can be started, as when the interpreter is shutting down.
        """
        with self._lock:
            if self._ended is None or self._ended.is_set():
                ended = threading.Event()
                context = contextvars.copy_context()
                thread = threading.Thread(target=context.run, args=(_run, work, ended), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return None
                self._ended = ended
            return self._ended

    def join(self, work: Callable[[], None]) -> None:
        """Starts the work unless it is already running, and waits until it ends."""
        ended = self.start(work)
        if ended is None:
            work()
        else:
            ended.wait()


def _run(work: Callable[[], None], ended: threading.Event) -> None:
    try:
        work()
    finally:
        ended.set()
