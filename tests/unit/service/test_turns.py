"""Turns: callers one after the other, places that run out, and slices that leave time to everything else."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service import turns as turns_module
from livekit_auth_server.service.turns import OPEN, PLACES, SLICE, Turns
from support.fakes import FakeClock


class Pieces:
    """Pieces of work that are begun in the order of their turns, and end when the test says so."""

    def __init__(self) -> None:
        self.turns = Turns(FakeClock())
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def queue(self, *names: str) -> None:
        """Queues pieces; the caller of "a1" is "a"."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._piece(name)))
        await settled()

    async def _piece(self, name: str) -> None:
        async with self.turns.of(name[0]):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settled()

    def refused(self) -> list[Refusal]:
        failed = [task.exception() for task in self.tasks if task.done() and not task.cancelled()]
        return [error for error in failed if isinstance(error, Refusal)]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def pieces():
    made = Pieces()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    assert not made.turns._waiting
    assert not made.turns._open
    assert not made.turns._places


async def test_a_caller_has_one_piece_of_work_in_progress(pieces: Pieces):
    await pieces.queue("a1", "a2", "a3")
    assert pieces.begun == ["a1"]
    await pieces.end("a1")
    assert pieces.begun == ["a1", "a2"]


async def test_another_caller_waits_for_nothing_that_one_caller_queues(pieces: Pieces):
    await pieces.queue(*[f"a{number}" for number in range(PLACES)])
    await pieces.queue("b1")
    assert pieces.begun == ["a0", "b1"]


async def test_callers_take_turns_when_all_turns_are_taken(pieces: Pieces, monkeypatch):
    monkeypatch.setattr(turns_module, "OPEN", 1)
    await pieces.queue("a1", "a2", "a3", "b1", "b2", "c1")
    for _ in range(6):
        await pieces.end(pieces.begun[-1])
    assert pieces.begun == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_a_few_callers_are_served_at_once(pieces: Pieces):
    await pieces.queue(*[f"{caller}1" for caller in "abcdefgh"])
    assert pieces.begun == [f"{caller}1" for caller in "abcdefgh"[:OPEN]]
    await pieces.end("b1")
    assert pieces.begun[OPEN:] == ["e1"]


async def test_a_caller_without_a_place_is_refused_and_others_are_not(pieces: Pieces):
    await pieces.queue(*[f"a{number}" for number in range(PLACES + 2)])
    assert [refusal.reason for refusal in pieces.refused()] == [Reason.OVERLOADED] * 2
    assert {refusal.metadata["cause"] for refusal in pieces.refused()} == {"caller_queue"}
    await pieces.queue("b1")
    await pieces.end("a0")
    await pieces.queue("a99")
    assert len(pieces.refused()) == 2


async def test_a_piece_of_work_waits_for_its_turn_only_so_long(pieces: Pieces, monkeypatch):
    monkeypatch.setattr(turns_module, "PATIENCE", 0.01)
    await pieces.queue("a1", "a2", "b1")
    [_, late, _] = pieces.tasks
    assert isinstance(error := (await asyncio.gather(late, return_exceptions=True))[0], Refusal)
    assert (error.reason, error.metadata) == (Reason.OVERLOADED, {"cause": "server_queue"})
    assert pieces.begun == ["a1", "b1"], "those with a turn keep it"
    await pieces.queue("a3")
    await pieces.end("a1")
    assert pieces.begun[2:] == ["a3"]


async def test_whoever_stops_waiting_leaves_its_place(pieces: Pieces):
    await pieces.queue("a1", "a2", "a3")
    pieces.tasks[1].cancel()
    await settled()
    await pieces.end("a1")
    assert pieces.begun == ["a1", "a3"]


async def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next(pieces: Pieces):
    for early in (False, True):
        await pieces.queue("a1", "a2", "a3")
        if early:  # the turn comes across a call that has been cancelled and doesn't know it yet
            pieces.tasks[-2].cancel()
            pieces._ends["a1"].set()
        else:
            pieces._ends["a1"].set()
            await asyncio.sleep(0)
            assert pieces.turns._open == {"a"}, "a2 has the turn"
            assert pieces.begun[-1] == "a1", "and doesn't know it yet"
            pieces.tasks[-2].cancel()
        await settled()
        assert pieces.begun[-1] == "a3"
        await pieces.end("a3")


async def test_a_piece_of_work_that_fails_ends_its_turn(pieces: Pieces):
    with suppress(RuntimeError):
        async with pieces.turns.of("a"):
            raise RuntimeError
    await pieces.queue("a1")
    assert pieces.begun == ["a1"]


# Slices


async def test_pieces_of_work_go_on_slice_by_slice():
    clock = FakeClock()
    turns, done = Turns(clock), []

    def work(item: str) -> None:
        clock.stopwatch += SLICE / 2
        done.append(item)

    await asyncio.gather(turns.each(["a1", "a2", "a3", "a4", "a5"], work), turns.each(["b1", "b2", "b3"], work))
    assert done == ["a1", "a2", "b1", "b2", "a3", "a4", "b3", "a5"]


async def test_everything_else_gets_as_much_time_as_a_slice_took():
    clock, order = FakeClock(), []
    turns, going = Turns(clock), True

    def work(item: str) -> None:
        clock.stopwatch += SLICE
        order.append(item)

    async def others() -> None:
        while going:
            clock.stopwatch += SLICE / 4
            order.append(".")
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    await turns.each("abc", work)
    going = False
    await busy
    between = re.findall(r"(?<=\w)\.*(?=\w)", "".join(order))
    assert [len(rounds) in (4, 5) for rounds in between] == [True, True], order  # 5: floating point


async def test_a_slice_is_followed_by_the_next_when_there_is_nothing_else_to_do():
    clock, rounds = FakeClock(), 0
    turns, going = Turns(clock), True

    def work(_item: int) -> None:
        clock.stopwatch += 10 * SLICE

    async def counting() -> None:
        nonlocal rounds
        while going:
            rounds += 1
            clock.stopwatch += 0.000_001
            await asyncio.sleep(0)

    idle = asyncio.create_task(counting())
    await turns.each(range(10), work)
    going = False
    await idle
    assert rounds <= 12


async def test_work_that_fails_lets_go_of_the_worker():
    turns = Turns(FakeClock())
    with pytest.raises(ZeroDivisionError):
        await turns.each([1, 0], lambda item: 1 // item)
    done: list[int] = []
    await asyncio.wait_for(turns.each([1], done.append), 5)
    assert done == [1]
