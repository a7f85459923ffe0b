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
            ("duplicate",),
            registry=registry,
        )
        names = {True: "yes", False: "no", None: "unknown"}
        self._children = {answer: counter.labels(name) for answer, name in names.items()}

    def checked(self, duplicate: bool | None) -> None:  # noqa: FBT001 - the answer
        """A webhook was genuine; None when nobody could say whether it came before."""
        self._children[duplicate].inc()
