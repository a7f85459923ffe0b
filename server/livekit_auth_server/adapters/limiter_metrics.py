"""Prometheus metrics of rate limits and of the store that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class LimitMetrics:
    """Counts refused calls by method, and says whether Redis is there where there should be one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._limited = Counter("livekit_auth_limited", "Calls over a rate limit.", ("method",), registry=registry)

    def limited(self, method: str) -> None:
        """A call of this method was refused."""
        self._limited.labels(method).inc()

    def redis(self) -> RedisMetrics:
        """The metrics of a configured Redis."""
        return RedisMetrics(self._registry)


class RedisMetrics:
    """Whether Redis is there, and what becomes of limits when it isn't."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._up = Gauge("livekit_auth_redis_up", "1 while Redis answers.", registry=registry)
        self._fallback = Gauge(
            "livekit_auth_limits_fallback",
            "1 for what is in force: limits shared in Redis, local to this process, or calls refused.",
            ("state",),
            registry=registry,
        )

    def changed(self, up: bool, when_unavailable: str) -> None:  # noqa: FBT001 - a gauge's value
        """Redis came or went."""
        self._up.set(up)
        state = "shared" if up else when_unavailable
        for name in ("shared", "local", "refuse"):
            self._fallback.labels(name).set(name == state)
