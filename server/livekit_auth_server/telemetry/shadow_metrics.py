"""Metrics and log lines about a candidate policy: counts by kind, and differences at a bounded rate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client import Counter

from livekit_auth_server.logs.bounded_rate import FewLines

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.service.shadow import Difference

_KINDS = ("same", "would_allow", "would_deny", "differs", "error")


class ShadowMetrics:
    """Counts every comparison, and logs differences at a bounded rate."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._lines = FewLines(clock)
        counter = Counter(
            "livekit_auth_shadow", "Decisions compared with the candidate policy's.", ("kind",), registry=registry
        )
        self._counts = {kind: counter.labels(kind) for kind in _KINDS}

    def same(self) -> None:
        """The candidate decides as the policy in force did."""
        self._counts["same"].inc()

    def different(self, difference: Difference) -> None:
        """The candidate decides otherwise."""
        self._counts[difference.kind].inc()
        self._lines.say("warning", "candidate policy decides otherwise", asdict(difference))

    def failed(self, error: Exception) -> None:
        """The candidate failed to decide."""
        self._counts["error"].inc()
        self._lines.say("warning", "candidate policy failed", {"error": type(error).__name__})
