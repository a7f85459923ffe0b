"""Which denials get a line of their own, in the audit trail or the log, and which are counted together.

Guarantees: a caller gets `RATE` lines a second, after a burst of as many; what it is denied beyond that is counted by
method and reason, and comes out as one record a second. Callers that have no allowance of their own, such as all those
that the policy doesn't list, share one. Memory is bounded by the callers that were denied something lately, whatever
they ask for.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

RATE = 10.0
UNLISTED = ""  # the allowance that all callers share that the policy doesn't list
_NAMED = 8  # callers that the record of a shared allowance names


class Denied(Protocol):
    """A denial, as far as it is counted: an AuditRecord, or a refused call. `time` is seconds since the epoch."""

    @property
    def caller(self) -> str:
        """Who was denied."""

    @property
    def time(self) -> int:
        """When."""

    @property
    def method(self) -> str:
        """What was called."""

    @property
    def reason(self) -> str:
        """Why it was denied."""

    @property
    def policy_revision(self) -> str:
        """By which policy, empty where that doesn't matter."""


@dataclass(slots=True)
class CountedDenials:
    """Denials that share a line. Times are seconds since the epoch.

    `caller` is whose allowance it is, or the name of a shared one; `callers` are the first few that shared it.
    """

    caller: str
    first: int
    last: int
    policy_revision: str
    shared: bool = False
    count: int = 0
    methods: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    callers: list[str] = field(default_factory=list)

    def add(self, denied: Denied) -> None:
        """Counts one more."""
        self.count += 1
        self.last, self.policy_revision = denied.time, denied.policy_revision
        self.methods[denied.method] += 1
        self.reasons[denied.reason] += 1
        if self.shared and len(self.callers) < _NAMED and denied.caller not in self.callers:
            self.callers.append(denied.caller)

    def fields(self) -> dict[str, Any]:
        """What a line says of them."""
        return {
            "caller": self.caller,
            "listed": not self.shared,
            "callers": self.callers,
            "permitted": False,
            "time": self.last,
            "from": self.first,
            "count": self.count,
            "methods": self.methods,
            "reasons": self.reasons,
            "policy_revision": self.policy_revision,
        }

    def to_json(self) -> str:
        """One line of JSON in ASCII."""
        return json.dumps(self.fields(), separators=(",", ":"))


@dataclass(slots=True)
class _Bucket:
    """What is left of an allowance, when that was so, and what was counted beyond it."""

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

    def __bool__(self) -> bool:
        """Whether anybody was denied something lately."""
        return bool(self._buckets)

    def admits(self, denied: Denied, now: float, *, shared: str | None = None) -> bool:
        """Whether the denial gets a line of its own; otherwise it is counted.

        `shared` names the allowance that it comes out of instead of the caller's own; no caller is called so.
        """
        key = denied.caller if shared is None else shared
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self.rate, now)
        bucket.refill(now, self.rate)
        if bucket.left >= 1:
            bucket.left -= 1
            return True
        if bucket.counted is None:
            bucket.counted = CountedDenials(key, denied.time, denied.time, denied.policy_revision, shared is not None)
            bucket.counting_since = now
        bucket.counted.add(denied)
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
