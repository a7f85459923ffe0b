"""The registry of one process, with the metrics that every process has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable


def new_registry(dropped: Callable[[], float]) -> CollectorRegistry:
    """A registry with the `process_*` and `python_*` metrics, and the number of dropped log lines."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    lines = Gauge("livekit_auth_log_lines_dropped", "Log lines that nobody read in time.", registry=registry)
    lines.set_function(dropped)
    return registry
