"""Rate limits: which calls a limit counts, and the moving window that counts them.

Guarantees: never more than `amount` in any `seconds`; what is refused isn't counted; a window holds a few hundred
numbers at most, whatever its amount. The price of the last: a call that would fit may be refused for up to 1/256 of the
window (4 ms at 20/s, 14 s at 600/h), and `wait` says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

GRAINS = 256
"""How many times within a window are told apart. Calls closer together leave it together, with the last of them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` in any `seconds`, of calls to `methods` (None: all) in `project` (empty: any). One counter."""

    amount: int
    seconds: int
    methods: frozenset[str] | None = None
    project: str = ""
    key: str = field(init=False)
    """The limit's name among those of its caller, the same in every process."""

    def __post_init__(self) -> None:
        methods = ",".join(sorted(self.methods)) if self.methods is not None else "any"
        object.__setattr__(self, "key", f"{self.rate}|{methods}|{self.project}")

    @property
    def rate(self) -> str:
        """The rate as the policy writes it, such as "20/s"."""
        unit = next(unit for unit, seconds in UNITS.items() if seconds == self.seconds)
        return f"{self.amount}/{unit}"

    def counts(self, method: str, project: str | None) -> bool:
        """Whether it counts such a call. None stands for a project that isn't known yet: every limit counts it."""
        if self.methods is not None and method not in self.methods:
            return False
        return not self.project or project is None or project == self.project


class Charge(NamedTuple):
    """What one call costs one limit: 1 to the limit's amount."""

    limit: Limit
    cost: int


class Excess(NamedTuple):
    """The limit that a call went over, and after how many seconds it will fit."""

    limit: Limit
    retry_after: float


@dataclass(slots=True)
class _Run:
    """Calls close together: when the first and the last of them came, and what they cost."""

    first: float
    last: float
    cost: int


class MovingWindow:
    """What was let through in the last `seconds`. Times are in seconds and never go back."""

    __slots__ = ("_amount", "_grain", "_runs", "_seconds", "_used")

    def __init__(self, limit: Limit) -> None:
        self._amount, self._seconds = limit.amount, limit.seconds
        self._grain = limit.seconds / GRAINS
        self._runs: deque[_Run] = deque()
        self._used = 0

    def wait(self, cost: int, now: float) -> float:
        """Seconds until this cost fits; 0 when it does now. A cost over the amount never fits and isn't asked for."""
        self._forget(now)
        excess = self._used + cost - self._amount
        if excess <= 0:
            return 0.0
        for run in self._runs:
            excess -= run.cost
            if excess <= 0:
                return run.last + self._seconds - now
        raise ValueError("a cost over the limit's amount never fits")

    def add(self, cost: int, now: float) -> None:
        """Counts this cost."""
        self._used += cost
        last = self._runs[-1] if self._runs else None
        if last is not None and now - last.first < self._grain:
            last.last, last.cost = now, last.cost + cost
        else:
            self._runs.append(_Run(now, now, cost))

    def empty(self, now: float) -> bool:
        """Whether nothing counts any more."""
        self._forget(now)
        return not self._runs

    def _forget(self, now: float) -> None:
        runs = self._runs
        while runs and runs[0].last + self._seconds <= now:
            self._used -= runs.popleft().cost
