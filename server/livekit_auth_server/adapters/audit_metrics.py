"""What Prometheus is told of the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class AuditMetrics:
    """Whether the trail can be written, how far its chain has come, and which denials have no line of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._up = Gauge("livekit_auth_audit_up", "Whether the audit trail can be written.", registry=registry)
        self._sequence = Gauge(
            "livekit_auth_audit_sequence",
            "The number of the line last exported as the chain's head.",
            registry=registry,
        )
        self._dropped = Counter(
            "livekit_auth_audit_dropped_denials", "Lines about denials that were lost.", registry=registry
        )
        self._coalesced = Counter(
            "livekit_auth_audit_coalesced_denials", "Denials that were counted in a shared line.", registry=registry
        )
        self._is_up = True
        self._up.set(1)

    def up(self, *, up: bool) -> None:
        """Whether the trail can be written."""
        if up is not self._is_up:
            self._is_up = up
            self._up.set(int(up))

    def head(self, sequence: int) -> None:
        """A head went to the log."""
        self._sequence.set(sequence)

    def dropped(self, count: int) -> None:
        """Lines about denials were lost."""
        self._dropped.inc(count)

    def coalesced(self, count: int) -> None:
        """Denials were counted in a line that they share."""
        self._coalesced.inc(count)
