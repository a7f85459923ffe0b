"""Memory that callers use, bounded for each of them and in all.

Guarantees: what is taken never exceeds the bounds, except that one request alone may; requests that have to wait get
their turn owner by owner, so that one caller's queue delays nobody else's; a request that gives up waiting holds
nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """At most `total` bytes in all and `each` bytes per owner. Call it from the event loop only.

    Amounts up to `small` wait for their owner's share alone: a request that needs next to nothing doesn't wait for
    those that need much. `newest_first` serves the newest of an owner's requests first, where the older ones may be
    there to fill the queue.
    """

    __slots__ = ("_each", "_held", "_newest_first", "_owners", "_small", "_total", "_waiting")

    def __init__(self, total: int, each: int, *, small: int = 0, newest_first: bool = False) -> None:
        self._total, self._each, self._small, self._newest_first = total, each, small, newest_first
        self._held = 0
        self._owners: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], int]]] = {}

    @property
    def waiting(self) -> dict[str, int]:
        """How many requests of each owner wait."""
        return {owner: len(queue) for owner, queue in self._waiting.items()}

    def heaviest(self) -> str:
        """The owner that has taken most; "" when nobody has taken anything."""
        return max(self._owners, key=self._owners.__getitem__, default="")

    def try_take(self, owner: str, amount: int) -> bool:
        """Takes this many bytes if they are free, and nobody of this owner waits."""
        if owner in self._waiting or not self._fits(owner, amount):
            return False
        self._add(owner, amount)
        return True

    async def take(self, owner: str, amount: int) -> None:
        """Takes this many bytes; waits until they are free. Each `take` needs its `give`."""
        if self.try_take(owner, amount):
            return
        granted = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(owner, deque())
        (queue.appendleft if self._newest_first else queue.append)((granted, amount))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(owner, amount)
            else:
                self._forget(owner, granted)
            raise

    def give(self, owner: str, amount: int) -> None:
        """Gives bytes back."""
        self._add(owner, -amount)
        if self._waiting:
            self._grant()

    def _add(self, owner: str, amount: int) -> None:
        self._held += amount
        if held := self._owners.get(owner, 0) + amount:
            self._owners[owner] = held
        else:
            self._owners.pop(owner, None)

    def _fits(self, owner: str, amount: int) -> bool:
        held = self._owners.get(owner, 0)
        if held and held + amount > self._each:
            return False
        return amount <= self._small or not self._held or self._held + amount <= self._total

    def _grant(self) -> None:
        """Lets the first of each owner go, in turns, for as long as something fits."""
        going = True
        while going:
            going = False
            for owner in list(self._waiting):
                queue = self._waiting[owner]
                granted, amount = queue[0]
                if not self._fits(owner, amount):
                    continue
                queue.popleft()
                del self._waiting[owner]
                if queue:
                    self._waiting[owner] = queue  # behind the others
                if not granted.done():
                    self._add(owner, amount)
                    granted.set_result(None)
                going = True

    def _forget(self, owner: str, granted: asyncio.Future[None]) -> None:
        queue = self._waiting.get(owner, deque())
        left = deque(entry for entry in queue if entry[0] is not granted)
        if left:
            self._waiting[owner] = left
        else:
            self._waiting.pop(owner, None)
        self._grant()  # the next of this owner may need less
