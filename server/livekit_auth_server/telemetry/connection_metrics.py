"""Prometheus metrics of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

from livekit_auth_server.transport.grpc_aio.connections import EVENTS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class ConnectionMetrics:
    """Counts connections by what became of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "livekit_auth_connections", "Connections by what became of them.", ("event",), registry=registry
        )
        self._events = {event: counter.labels(event) for event in EVENTS}

    def happened(self, event: str, count: int) -> None:
        """Counts `count` connections for one of EVENTS."""
        self._events[event].inc(count)
