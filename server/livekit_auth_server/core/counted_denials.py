"""Which denials get a line of their own, in the audit trail or the log, and which are counted together.

Guarantees: a caller gets `RATE` lines per second, after a burst of as many. Further denials are counted by method and
reason and make one record per second. Callers without an allowance of their own, such as all those that the policy
doesn't list, share one. Memory is bounded by the number of callers that were denied something recently, whatever they
ask for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

RATE = 10.0
UNLISTED = ""  # the allowance shared by all callers that the policy doesn't list
_NAMED = 8  # callers that the record of a shared allowance names


class Denied(Protocol):
    """What is counted: the denial of an AuditRecord, or a refused call. `time` is in seconds since the epoch."""

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
        """By which policy, empty if that doesn't matter."""


@dataclass(slots=True)
class CountedDenials:
    """Denials that share a line. Times are in seconds since the epoch.

    `caller` is the owner of the allowance, or the name of a shared one; `callers` are the first few that shared it.
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
        self.reasons[str(denied.reason)] += 1  # JSON takes no member of an enum as a name
        if self.shared and len(self.callers) < _NAMED and denied.caller not in self.callers:
            self.callers.append(denied.caller)

    def members(self) -> dict[str, Any]:
        """The JSON members of their line in the audit trail."""
        return {
            "kind": "denials",
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


@dataclass(slots=True)
class _Bucket:
    """The rest of an allowance, as of `at`, and what was counted beyond it."""

    left: float
    at: float
    counted: CountedDenials | None = None
    counting_since: float = 0.0

    def refill(self, now: float, rate: float) -> None:
        self.left = min(rate, self.left + (now - self.at) * rate)
        self.at = now


@dataclass(slots=True)
class Denials:
    """The allowances. `now` is a monotonic clock's time, in seconds."""

    rate: float = RATE
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any caller was denied something recently."""
        return bool(self._buckets)

    def admits(self, denied: Denied, now: float, *, shared: str | None = None) -> bool:
        """Whether the denial gets a line of its own; otherwise it is counted.

        `shared` names an allowance to use instead of the caller's own; no caller has that name.
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
        """Takes out what was counted for `every` seconds or longer, and forgets callers whose allowance is full."""
        ready: list[CountedDenials] = []
        for key, bucket in list(self._buckets.items()):
            if bucket.counted is not None and now - bucket.counting_since >= every:
                ready.append(bucket.counted)
                bucket.counted = None
            bucket.refill(now, self.rate)
            if bucket.counted is None and bucket.left >= self.rate:
                del self._buckets[key]
        return ready
