"""One piece of work at a time, apart from those who wait for it: for asyncio a task, for threads a thread.

Whoever waits may go away, by cancellation or otherwise: the work goes on, and nobody else's waiting ends with it. A
forked child, which has neither the task nor the thread, begins anew. These two are the one pair of twins that
tools/unasync.py doesn't write.
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
    """Work as a task of the running event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: forgets the parent's task."""
        self._task = None

    def start(self, work: Callable[[], Coroutine[object, object, None]]) -> asyncio.Task[None]:
        """Starts the work unless it is going on, and returns at once. The work must not raise."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(work())
        return self._task

    async def join(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Starts the work unless it is going on, and waits for its end."""
        await asyncio.wait({self.start(work)})


class SingleFlight:
    """Work in a thread."""

    def __init__(self) -> None:
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: forgets the parent's thread."""
        self._lock = threading.Lock()
        self._ended: threading.Event | None = None

    def start(self, work: Callable[[], None]) -> threading.Event | None:
        """Starts the work unless it is going on, and returns at once what is set at its end. The work must not raise.

        Starts nothing and returns None where there is no thread to be had, as when the interpreter is ending.
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
        """Starts the work unless it is going on, and waits for its end."""
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
