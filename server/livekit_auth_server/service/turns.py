"""Whose long work is done now: a place in its caller's queue, a turn among callers, and the worker's time in slices.

Guarantees: callers take turns, so that what one of them queues keeps no other waiting for more than one piece of work;
a caller has at most `PLACES` pieces of work here, and none waits longer than `PATIENCE`; at most `OPEN` are in
progress, one for each of as many callers; a slice ends after `SLICE` seconds, and whatever else the worker has to do
then gets as much time as the slice took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from livekit_auth_server.core.refusal import Overload, overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from livekit_auth_server.service.ports import Clock

T = TypeVar("T")

PLACES = 32
OPEN = 4
SLICE = 0.001  # seconds
PATIENCE = 1.5  # seconds that a piece of work waits for its turn, about as long as a caller's full queue takes
_IDLE = 0.00002  # seconds: the event loop comes round faster than that only when it has nothing to do


@dataclass(slots=True)
class Turns:
    """The turns of one worker, by the clock's stopwatch."""

    clock: Clock
    _places: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict)  # the next caller first
    _open: set[str] = field(default_factory=set)
    _slices: asyncio.Lock = field(default_factory=asyncio.Lock)  # fair: the longest-waiting piece of work is next

    @asynccontextmanager
    async def of(self, caller: str) -> AsyncIterator[None]:
        """Waits for the caller's turn, and holds it. Raises OVERLOADED without a place, or a turn in time."""
        places = self._places.get(caller, 0)
        if places >= PLACES:
            message = f"{places} of your requests wait for their turn, the most that one caller may have"
            raise overloaded(Overload.CALLER_QUEUE, message)
        self._places[caller] = places + 1
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._turn(caller)
            except TimeoutError:
                raise overloaded(Overload.SERVER_QUEUE, f"this request got no turn within {PATIENCE:g} s") from None
            try:
                yield
            finally:
                self._end(caller)
        finally:
            if self._places[caller] > 1:
                self._places[caller] -= 1
            else:
                del self._places[caller]

    async def each(self, items: Sequence[T], work: Callable[[T], object]) -> None:
        """Does short work on each item, in slices."""
        position = 0
        while position < len(items):
            async with self._slices:
                began, took = self.clock.monotonic(), 0.0
                while position < len(items) and took < SLICE:
                    work(items[position])
                    position += 1
                    took = self.clock.monotonic() - began
                await self._give_way(took)

    async def _turn(self, caller: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(caller, turn)
            else:  # the turn came at the same moment
                self._end(caller)
            raise

    def _next(self) -> None:
        """Gives free turns to the callers that have waited longest and hold none."""
        while len(self._open) < OPEN:
            caller = next((caller for caller in self._waiting if caller not in self._open), None)
            if caller is None:
                return
            waiting = self._waiting.pop(caller)
            turn = waiting.popleft()
            if waiting:
                self._waiting[caller] = waiting  # behind the others
            if not turn.cancelled():
                turn.set_result(None)
                self._open.add(caller)

    def _end(self, caller: str) -> None:
        self._open.discard(caller)
        self._next()

    def _forget(self, caller: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(caller)
        if waiting is not None and turn in waiting:  # else `_next` has come across it
            waiting.remove(turn)
            if not waiting:
                del self._waiting[caller]

    async def _give_way(self, seconds: float) -> None:
        """Lets others work for so long, or until there is nothing to do."""
        began = now = self.clock.monotonic()
        while now - began < seconds:
            before = now
            await asyncio.sleep(0)
            now = self.clock.monotonic()
            if now - before < _IDLE:
                return
