"""Tasks that end with the block they were started in."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from livekit_auth_server.process.background import Background, every


async def test_tasks_have_ended_when_the_block_ends() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("wait")

    with capture_logs() as lines:
        async with Background() as background:
            task = background.start(wait())
            await asyncio.sleep(0)
    assert (task.cancelled(), ended, lines) == (True, ["wait"], [])


async def test_a_task_that_failed_is_logged() -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    with capture_logs() as lines:
        async with Background() as background:
            background.start(fail())
            await asyncio.sleep(0)
    assert [line["event"] for line in lines] == ["background task failed"]


async def test_every_acts_until_it_is_cancelled() -> None:
    acts: list[int] = []
    third = asyncio.Event()

    def act() -> None:
        acts.append(1)
        if len(acts) == 3:
            third.set()

    async with Background() as background, asyncio.timeout(10):
        background.start(every(0.001, act))
        await third.wait()
    await asyncio.sleep(0.01)
    assert len(acts) == 3
