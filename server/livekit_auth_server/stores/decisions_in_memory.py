"""Recent denials in memory: bounded per caller and in all, with a lifetime, and fair between callers."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth_server.service.ports import Clock

LIFETIME = 3600  # seconds
PER_CALLER = 256
MAX_BYTES = 16 * 1024 * 1024
_OVERHEAD = 512  # bytes that a decision takes beside its own


class _Kept(NamedTuple):
    """A decision, and until when it is kept by the monotonic clock."""

    decision: bytes
    until: float

    @property
    def size(self) -> int:
        return len(self.decision) + _OVERHEAD


@dataclass(slots=True)
class MemoryDecisions:
    """Keeps each caller's newest `per_caller` decisions for LIFETIME, in `max_bytes` at most.

    When all of them take more, the callers that hold most lose their oldest: a caller that is denied a lot costs the
    others nothing.
    """

    clock: Clock
    per_caller: int = PER_CALLER
    max_bytes: int = MAX_BYTES
    _callers: dict[str, OrderedDict[str, _Kept]] = field(default_factory=dict)  # the oldest decision first
    _owners: OrderedDict[str, str] = field(default_factory=OrderedDict)  # of each decision, the oldest first
    _sizes: dict[str, int] = field(default_factory=dict)  # of each caller's decisions, in bytes
    _total: int = 0

    def keep(self, caller: str, decision_id: str, decision: bytes) -> None:
        """Keeps a decision."""
        self.put(caller, decision_id, decision)

    def put(self, caller: str, decision_id: str, decision: bytes) -> list[str]:
        """Keeps a decision; returns those that were forgotten for it."""
        now = self.clock.monotonic()
        kept = _Kept(decision, now + LIFETIME)
        self._callers.setdefault(caller, OrderedDict())[decision_id] = kept
        self._owners[decision_id] = caller
        self._sizes[caller] = self._sizes.get(caller, 0) + kept.size
        self._total += kept.size
        gone = list(self._expired(now))
        while len(self._callers[caller]) > self.per_caller:
            gone.append(self._forget_oldest(caller))
        if self._total > self.max_bytes:
            gone += self._make_room()
        return gone

    async def find(self, decision_id: str) -> bytes | None:
        """The decision; None if there is none, or none any more."""
        return self.get(decision_id)

    def get(self, decision_id: str) -> bytes | None:
        """The same, at once."""
        caller = self._owners.get(decision_id)
        if caller is None:
            return None
        kept = self._callers[caller][decision_id]
        return kept.decision if kept.until > self.clock.monotonic() else None

    def _expired(self, now: float) -> Iterator[str]:
        """Forgets what has expired."""
        while True:
            decision_id, caller = next(iter(self._owners.items()))
            if self._callers[caller][decision_id].until > now:
                return
            yield self._forget_oldest(caller)

    def _make_room(self) -> Iterator[str]:
        """Frees a sixteenth of the room, so that callers are seldom compared."""
        heaviest = [(-size, caller) for caller, size in self._sizes.items()]
        heapq.heapify(heaviest)
        while self._total > self.max_bytes * 15 // 16:
            _, caller = heaviest[0]
            yield self._forget_oldest(caller)
            heapq.heapreplace(heaviest, (-self._sizes.get(caller, 0), caller))

    def _forget_oldest(self, caller: str) -> str:
        decisions = self._callers[caller]
        decision_id, kept = decisions.popitem(last=False)
        del self._owners[decision_id]
        self._total -= kept.size
        self._sizes[caller] -= kept.size
        if not decisions:
            del self._callers[caller], self._sizes[caller]
        return decision_id
