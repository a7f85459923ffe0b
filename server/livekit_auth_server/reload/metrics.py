"""Prometheus metrics of reloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry


class ReloadMetrics:
    """Counts reloads of each kind, and shows which kinds are older than their files."""

    def __init__(self, registry: CollectorRegistry, kinds: Iterable[str]) -> None:
        labels = ("kind",)
        self._reloads = Counter(
            "livekit_auth_reload", "Reloads of changed files.", (*labels, "outcome"), registry=registry
        )
        self._failed = Gauge(
            "livekit_auth_reload_failed",
            "1 while a file can't be used and the last good one is in force.",
            labels,
            registry=registry,
        )
        self._registry = registry
        for kind in kinds:
            self._failed.labels(kind).set(0)
            for outcome in ("ok", "failed"):
                self._reloads.labels(kind, outcome)

    def reloaded(self, kind: str, *, ok: bool) -> None:
        """A kind was reloaded, or couldn't be."""
        self._reloads.labels(kind, "ok" if ok else "failed").inc()
        self._failed.labels(kind).set(not ok)

    def count_stale_crls(self, count: Callable[[], int]) -> None:
        """Shows what `count` returns as the number of CRLs whose next issue is overdue."""
        gauge = Gauge("livekit_auth_crls_stale", "CRLs whose next issue is overdue.", registry=self._registry)
        gauge.set_function(count)
