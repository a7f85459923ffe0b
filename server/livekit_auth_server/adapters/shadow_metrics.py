"""What is said of a candidate policy: counts by kind, and log lines of which there are only so many."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.service.shadow import Difference

LINES, SECONDS = 10, 1.0
"""So many log lines in so many seconds; further differences are counted in the next line's `not_logged`."""

_KINDS = ("same", "would_allow", "would_deny", "differs", "error")


class ShadowMetrics:
    """Counts every comparison, and logs differences at a bounded rate."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._log, self._clock = structlog.get_logger("livekit_auth_server"), clock
        counter = Counter(
            "livekit_auth_shadow", "Decisions held against the candidate policy.", ("kind",), registry=registry
        )
        self._counts = {kind: counter.labels(kind) for kind in _KINDS}
        self._window, self._lines, self._not_logged = float("-inf"), 0, 0

    def same(self) -> None:
        """The candidate decides as the policy in force did."""
        self._counts["same"].inc()

    def different(self, difference: Difference) -> None:
        """The candidate decides otherwise."""
        self._counts[difference.kind].inc()
        self._say("the candidate policy decides otherwise", asdict(difference))

    def failed(self, error: Exception) -> None:
        """The candidate couldn't be asked."""
        self._counts["error"].inc()
        self._say("the candidate policy couldn't be asked", {"error": type(error).__name__})

    def _say(self, event: str, fields: dict[str, str]) -> None:
        now = self._clock.monotonic()
        if now - self._window >= SECONDS:
            self._window, self._lines = now, 0
        if self._lines >= LINES:
            self._not_logged += 1
            return
        self._lines += 1
        left, self._not_logged = self._not_logged, 0
        self._log.warning(event, **fields, **({"not_logged": left} if left else {}))
