"""Prometheus metrics of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class WebhookMetrics:
    """Counts genuine webhooks by whether their caller had handled them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "livekit_auth_webhooks",
            "Webhooks that LiveKit has signed, by whether their caller had acknowledged them.",
            ("duplicate_status",),
            registry=registry,
        )
        # All three from the start, so that a rate has its zero.
        self._children = {status: counter.labels(status) for status in ("new", "duplicate", "unknown")}

    def checked(self, duplicate_status: str) -> None:
        """A webhook was genuine."""
        self._children[duplicate_status].inc()
