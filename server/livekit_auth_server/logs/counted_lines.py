"""Log lines that callers can cause, with an allowance per caller: further lines are counted together.

The audit trail does the same with denials (core/counted_denials.py). Call this from the event loop only. It writes
what it counted by itself, one second later.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from livekit_auth_server.core.counted_denials import RATE, CountedDenials, Denials, Denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.service.ports import Clock

_EVERY = 1.0  # seconds
_log = structlog.get_logger("livekit_auth_server")


class Happening(NamedTuple):
    """What is counted of a line; see core.counted_denials.Denied."""

    caller: str
    time: int
    method: str
    reason: str
    policy_revision: str = ""


class CountedLines:
    """Decides which lines are written alone; `write` gets the counts of the others. `rate` is lines per second."""

    def __init__(self, clock: Clock, write: Callable[[CountedDenials], None], rate: float = RATE) -> None:
        self._clock, self._write, self._denials = clock, write, Denials(rate)
        self._timer: asyncio.TimerHandle | None = None

    def admits(self, denied: Denied, shared: str | None = None) -> bool:
        """Whether it gets a line of its own; otherwise it is counted. `shared` names a shared allowance."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._due)
        return self._denials.admits(denied, self._clock.monotonic(), shared=shared)

    def close(self) -> None:
        """Writes what was counted and not yet written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_counted(0.0)

    def _due(self) -> None:
        self._timer = None
        self._write_counted(_EVERY)
        if self._denials:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._due)

    def _write_counted(self, every: float) -> None:
        for counted in self._denials.counted(self._clock.monotonic(), every):
            try:
                self._write(counted)
            except Exception:  # noqa: BLE001 - the next one may do better
                _log.exception("counted lines can't be written")
