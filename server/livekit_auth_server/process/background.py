"""Tasks that run beside the main one, and end with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_log = structlog.get_logger("livekit_auth_server")


class Background:
    """A block's tasks: when the block ends they are cancelled, and have ended. One that fails is logged at once."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Runs this until it returns or the block ends."""
        task = asyncio.create_task(work)
        task.add_done_callback(_log_failure)
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        _log.error("background task failed", exc_info=problem)


async def every(seconds: float, act: Callable[[], None]) -> None:
    """Acts at this interval until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        act()
