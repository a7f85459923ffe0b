"""Prometheus metrics of decisions about tokens and of the audit trail."""

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
    """Decisions, how long they wait for the trail, the number of its last head, and the denials without a line."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
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

    def head(self, sequence: int) -> None:
        """A head went to the log."""
        self._sequence.set(sequence)

    def dropped(self, count: int) -> None:
        """Lines about denials were lost."""
        self._dropped.inc(count)

    def coalesced(self, count: int) -> None:
        """Denials were counted in a shared line."""
        self._coalesced.inc(count)

    def waited(self, seconds: float) -> None:
        """A call's permits waited this long, until they were recorded or failed."""
        self._wait.add(seconds)

    def decided(self, record: AuditRecord) -> None:
        """A denial, or a recorded permit."""
        outcome = ("dry_run" if record.dry_run else "issued") if record.permitted else "denied"
        self._decisions.add((record.method, outcome, record.reason))

    def unrecorded(self, records: Sequence[AuditRecord]) -> None:
        """Permits that couldn't be recorded."""
        for record in records:
            self._decisions.add((record.method, "unrecorded", Reason.AUDIT_UNAVAILABLE))

    def withheld(self, records: Sequence[AuditRecord], why: str) -> None:
        """Permits that are counted as issued, whose tokens didn't leave."""
        reason = why if why in Reason.__members__ else ""
        for record in records:
            self._decisions.add((record.method, "withheld", reason))

    def show(self, waiting: Callable[[], int], ready: Callable[[], list[str]]) -> None:
        """Shows how many decisions aren't recorded yet, and whether `ready` has no reason against issuing tokens."""
        text = "Decisions that wait until they are recorded."
        Gauge("livekit_auth_audit_waiting", text, registry=self._registry).set_function(waiting)
        text = "Whether the audit trail can be written."
        Gauge("livekit_auth_audit_up", text, registry=self._registry).set_function(lambda: not ready())


class CopyMetrics:
    """What became of the lines for a collector, and how many wait."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        text = "Audit records for the collector, by what became of them."
        self._records = Counts("livekit_auth_audit_otlp_records", text, ("outcome",), registry)
        for outcome in ("exported", "failed", "dropped"):
            self.count(outcome, 0)

    def count(self, outcome: str, count: int) -> None:
        """Lines were exported, refused by the collector (failed), or dropped from the queue."""
        self._records.add((outcome,), count)

    def show_waiting(self, waiting: Callable[[], int]) -> None:
        """Shows how many lines wait for the collector."""
        text = "Audit records that wait for the collector."
        Gauge("livekit_auth_audit_otlp_waiting", text, registry=self._registry).set_function(waiting)
