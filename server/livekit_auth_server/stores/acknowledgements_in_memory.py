"""Acknowledged webhooks in memory: bounded, with a lifetime, and fair between callers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.service.ports import StoreUnavailable

if TYPE_CHECKING:
    from livekit_auth_server.service.ports import Clock

Event = tuple[str, str, bytes]  # project, event id, SHA-256 of the body


@dataclass(slots=True)
class MemoryAckStore:
    """Remembers each caller's acknowledgements for `lifetime` seconds, the newest `per_caller` of them.

    A caller that acknowledges more forgets its own oldest, nobody else's. Callers over `max_callers` are refused: they
    come from the policy, so their number is bounded by it. A restart forgets everything.
    """

    clock: Clock
    lifetime: int = 24 * 3600
    per_caller: int = 20_000
    max_callers: int = 10_000
    _events: dict[str, OrderedDict[Event, int]] = field(default_factory=dict)

    async def is_acknowledged(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> bool:
        """Whether this caller acknowledged this event with these bytes within the lifetime."""
        events = self._events.get(caller)
        until = events.get((project, event_id, body_sha256)) if events else None
        return until is not None and until > self.clock.now()

    async def acknowledge(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> int:
        """Remembers it; returns until when, in seconds since the epoch. Raises StoreUnavailable."""
        if caller not in self._events and len(self._events) >= self.max_callers:
            raise StoreUnavailable
        events = self._events.setdefault(caller, OrderedDict())
        now = int(self.clock.now())
        event = (project, event_id, body_sha256)
        events[event] = now + self.lifetime
        events.move_to_end(event)
        self._forget(events, now)
        return now + self.lifetime

    def _forget(self, events: OrderedDict[Event, int], now: int) -> None:
        while events and (len(events) > self.per_caller or next(iter(events.values())) <= now):
            events.popitem(last=False)
