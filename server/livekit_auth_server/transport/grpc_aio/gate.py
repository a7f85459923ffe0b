"""What calls may hold of the server at once: places and bytes, for each caller and in all.

Guarantees: a call has its place before anything of its request is read, and its bytes before C-core assembles them;
callers that the policy doesn't list share what one caller has; a request that comes slowly makes way as soon as another
one waits for its bytes; whatever ends a call gives back what it held.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from livekit_auth_server.core.refusal import Overload, overloaded
from livekit_auth_server.service.budget import Budget

if TYPE_CHECKING:
    from types import TracebackType

PART_OF_ONE = 4  # a caller has this part of all places at most
PATIENCE = 1.0  # seconds that a request waits for its bytes
SLOW = 0.25  # seconds after which a request that is still coming makes way for one that waits
_PRESS = 0.05  # seconds between two looks for such requests, while there are any that wait


class Gate:
    """Counts the calls in flight, at most `calls` in all and a quarter of that per owner, and their requests' bytes."""

    __slots__ = ("_each", "_in_flight", "_most", "_pressing", "_reading", "_total", "bytes")

    def __init__(self, calls: int, request_bytes: int) -> None:
        self._most, self._each = calls, max(1, calls // PART_OF_ONE)
        self._total = 0
        self._in_flight: dict[str, int] = {}
        self._reading: dict[str, dict[Place, None]] = {}  # oldest first
        self._pressing = False
        self.bytes = Budget(request_bytes, request_bytes // 2, newest_first=True)

    def enter(self, owner: str) -> Place:
        """A place for a call of this owner. Raises OVERLOADED."""
        count = self._in_flight.get(owner, 0)
        if count >= self._each:
            message = f"you have {count} calls in flight, the most that one caller may have"
            raise overloaded(Overload.CALLER_CALLS, message)
        if self._total >= self._most:
            message = f"the server has {self._total} calls in flight, the most that it takes"
            raise overloaded(Overload.SERVER_CALLS, message)
        self._in_flight[owner] = count + 1
        self._total += 1
        return Place(self, owner)

    def leave(self, owner: str) -> None:
        """Gives a place back."""
        self._total -= 1
        if (left := self._in_flight[owner] - 1) > 0:
            self._in_flight[owner] = left
        else:
            del self._in_flight[owner]

    def reading(self, place: Place) -> None:
        """Notes that a request is being read."""
        self._reading.setdefault(place.owner, {})[place] = None

    def read(self, place: Place) -> None:
        """Notes that it isn't any more."""
        if (places := self._reading.get(place.owner)) is not None and place in places:
            del places[place]
            if not places:
                del self._reading[place.owner]

    def press(self) -> None:
        """Has slow requests make way, again and again until nobody waits."""
        if not self._pressing:
            self._pressing = True
            asyncio.get_running_loop().call_later(_PRESS, self._pressed)

    def _pressed(self) -> None:
        self._pressing = False
        now = asyncio.get_running_loop().time()
        for owner, waiting in self.bytes.waiting.items():
            # A caller's own slow requests first; without any, those of the caller that holds most.
            whose = owner if owner in self._reading else self.bytes.heaviest()
            slow = [place for place in self._reading.get(whose, ()) if place.since + SLOW <= now]
            for place in slow[:waiting]:
                place.make_way(now)
        if self.bytes.waiting:
            self.press()


class Place:
    """One call's place and bytes, until the block ends."""

    __slots__ = ("_gate", "_held", "_timeout", "displaced", "owner", "since")

    def __init__(self, gate: Gate, owner: str) -> None:
        self._gate, self.owner, self._held = gate, owner, 0
        self._timeout: asyncio.Timeout | None = None
        self.since = 0.0
        self.displaced = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.keep(0)
        self._gate.leave(self.owner)

    async def reserve(self, amount: int) -> None:
        """Takes this many bytes for a request; waits until the caller may have them. Raises OVERLOADED."""
        self.keep(0)
        if not self._gate.bytes.try_take(self.owner, amount):
            self._gate.press()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._gate.bytes.take(self.owner, amount)
            except TimeoutError:
                message = f"no room for the request within {PATIENCE:g} s"
                raise overloaded(Overload.REQUEST_BYTES, message) from None
        self._held = amount

    def reading(self, until: asyncio.Timeout) -> None:
        """The request is being read, which `until` ends."""
        self._timeout = until
        self.since = asyncio.get_running_loop().time()
        self._gate.reading(self)

    def keep(self, amount: int) -> None:
        """Gives back all bytes but these: the request is there, or won't come."""
        if self._timeout is not None:
            self._timeout = None
            self._gate.read(self)
        if amount < self._held:
            self._gate.bytes.give(self.owner, self._held - amount)
            self._held = amount

    def make_way(self, now: float) -> None:
        """Ends the reading."""
        if self._timeout is not None:
            self.displaced = True
            self._timeout.reschedule(now)
