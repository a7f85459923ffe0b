"""What Prometheus is told of decisions about tokens and of their audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from livekit_auth_server.core.refusal import Reason
from livekit_auth_server.telemetry.counters import Counts, TimesBy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.audit import AuditRecord

_WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)  # seconds


class AuditMetrics:
    """What was decided, how long that waited for the trail, how far its chain has come, and what has no line."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
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
        self._wait = TimesBy(
            "livekit_auth_audit_wait_seconds",
            "Time that a call's decisions wait until they are recorded, in seconds.",
            _WAITS,
            registry,
        ).of()
        self._decisions = Counts(
            "livekit_auth_decisions",
            "Decisions about tokens, each entry of a batch for itself.",
            ("method", "outcome", "reason"),
            registry,
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

    def waited(self, seconds: float) -> None:
        """A call's permits were recorded, or couldn't be."""
        self._wait.add(seconds)

    def decided(self, record: AuditRecord) -> None:
        """A denial, or a permit that is recorded."""
        outcome = ("dry_run" if record.dry_run else "issued") if record.permitted else "denied"
        self._decisions.add((record.method, outcome, record.reason))

    def unrecorded(self, records: Sequence[AuditRecord]) -> None:
        """Permits that couldn't be recorded."""
        for record in records:
            self._decisions.add((record.method, "unrecorded", Reason.AUDIT_UNAVAILABLE))

    def withheld(self, records: Sequence[AuditRecord], why: str) -> None:
        """Permits that were counted as issued, and whose tokens didn't leave."""
        reason = why if why in Reason.__members__ else ""
        for record in records:
            self._decisions.add((record.method, "withheld", reason))

    def show_waiting(self, count: Callable[[], int]) -> None:
        """Shows what `count` returns as the number of decisions that aren't recorded yet."""
        gauge = Gauge(
            "livekit_auth_audit_waiting", "Decisions that wait until they are recorded.", registry=self._registry
        )
        gauge.set_function(count)
