"""Prometheus metrics of the self-check: how the newest ended, and how many differences there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from livekit_auth_server.selfcheck.report import Kind
from livekit_auth_server.selfcheck.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from livekit_auth_server.selfcheck.verdict import Verdict


class SelfcheckMetrics(Collector):
    """Shows a verdict."""

    def __init__(self, registry: CollectorRegistry, verdict: Verdict) -> None:
        self._verdict = verdict
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        status = GaugeMetricFamily(
            "livekit_auth_selfcheck_status", "1 for how the newest selfcheck ended.", labels=("status",)
        )
        for name in get_args(Status):
            status.add_metric((name,), name == self._verdict.status)
        yield status
        differences = GaugeMetricFamily(
            "livekit_auth_selfcheck_differences",
            "Differences from livekit-api that the newest selfcheck with a result found.",
            labels=("kind",),
        )
        counts = self._verdict.found.counts if self._verdict.found else {}
        for kind in Kind:
            differences.add_metric((kind,), counts.get(kind, 0))
        yield differences
