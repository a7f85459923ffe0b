"""Which denials get a line of their own in the audit trail, and which are counted together.

Guarantees: a caller gets `RATE` lines a second, after a burst of as many; what it is denied beyond that is counted by
method and reason, and comes out as one record a second. All callers that the policy doesn't list share one such
allowance. Memory is bounded by the callers that were denied something lately, whatever they ask for.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livekit_auth_server.core.audit import AuditRecord

RATE = 10.0
UNLISTED = ""  # stands for all callers that the policy doesn't list
_NAMED = 8  # ids of unlisted callers that a counted record names


@dataclass(slots=True)
class CountedDenials:
    """Denials that share a line. Times are seconds since the epoch; `callers` are the first few unlisted ones."""

    caller: str
    first: int
    last: int
    policy_revision: str
    count: int = 0
    methods: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    callers: list[str] = field(default_factory=list)

    def add(self, record: AuditRecord) -> None:
        """Counts one more."""
        self.count += 1
        self.last, self.policy_revision = record.time, record.policy_revision
        self.methods[record.method] += 1
        self.reasons[record.reason] += 1
        if self.caller == UNLISTED and len(self.callers) < _NAMED and record.caller not in self.callers:
            self.callers.append(record.caller)

    def to_json(self) -> str:
        """One line of JSON in ASCII."""
        fields = {
            "caller": self.caller,
            "listed": self.caller != UNLISTED,
            "callers": self.callers,
            "permitted": False,
            "time": self.last,
            "from": self.first,
            "count": self.count,
            "methods": self.methods,
            "reasons": self.reasons,
            "policy_revision": self.policy_revision,
        }
        return json.dumps(fields, separators=(",", ":"))


@dataclass(slots=True)
class _Bucket:
    """What is left of a caller's allowance, when that was so, and what was counted beyond it."""

    left: float
    at: float
    counted: CountedDenials | None = None
    counting_since: float = 0.0

    def refill(self, now: float, rate: float) -> None:
        self.left = min(rate, self.left + (now - self.at) * rate)
        self.at = now


@dataclass(slots=True)
class Denials:
    """The allowances. `now` is a monotonic clock's, in seconds."""

    rate: float = RATE
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def admits(self, record: AuditRecord, now: float, *, listed: bool) -> bool:
        """Whether the denial gets a line of its own; otherwise it is counted."""
        key = record.caller if listed else UNLISTED
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self.rate, now)
        bucket.refill(now, self.rate)
        if bucket.left >= 1:
            bucket.left -= 1
            return True
        if bucket.counted is None:
            bucket.counted = CountedDenials(key, record.time, record.time, record.policy_revision)
            bucket.counting_since = now
        bucket.counted.add(record)
        return False

    def counted(self, now: float, every: float = 1.0) -> list[CountedDenials]:
        """Takes out what was counted for `every` seconds or longer, and forgets callers that are denied nothing now."""
        ready: list[CountedDenials] = []
        for key, bucket in list(self._buckets.items()):
            if bucket.counted is not None and now - bucket.counting_since >= every:
                ready.append(bucket.counted)
                bucket.counted = None
            bucket.refill(now, self.rate)
            if bucket.counted is None and bucket.left >= self.rate:
                del self._buckets[key]
        return ready
