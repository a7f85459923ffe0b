"""Prometheus metrics of rate limits and of the Redis that shares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from livekit_auth_server.logs.counted_lines import CountedLines, Happening

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.counted_denials import CountedDenials
    from livekit_auth_server.service.ports import Clock

_log = structlog.get_logger("livekit_auth_server")


class LimitMetrics:
    """Counts refused calls by method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._limited = Counter("livekit_auth_limited", "Calls over a rate limit.", ("method",), registry=registry)

    def limited(self, method: str) -> None:
        """A call of this method was refused."""
        self._limited.labels(method).inc()

    def redis(self, clock: Clock) -> RedisMetrics:
        """The metrics of a configured Redis."""
        return RedisMetrics(self._registry, clock)


class RedisMetrics:
    """Whether Redis is available, what applies to limits when it isn't, and unusable answers."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock, self._lines = clock, CountedLines(clock, self._say_together, rate=1.0)
        self._up = Gauge("livekit_auth_redis_up", "1 while Redis answers.", registry=registry)
        self._fallback = Gauge(
            "livekit_auth_limits_fallback",
            "1 for what is in force: limits shared in Redis, local to this process, or calls refused.",
            ("state",),
            registry=registry,
        )
        self._odd = Counter(
            "livekit_auth_redis_odd_answers", "Unusable answers of Redis about a caller's keys.", registry=registry
        )

    def changed(self, up: bool, when_unavailable: str) -> None:  # noqa: FBT001 - a gauge's value
        """Redis became available or unavailable."""
        self._up.set(up)
        state = "shared" if up else when_unavailable
        for name in ("shared", "local", "refuse"):
            self._fallback.labels(name).set(name == state)

    def odd(self, caller: str, problem: str) -> None:
        """An answer about this caller's keys was unusable; the caller is empty where the answer isn't about one."""
        self._odd.inc()
        if self._lines.admits(Happening(caller, int(self._clock.now()), "", problem), shared="redis"):
            _log.warning(_ODD, caller=caller, problem=problem)

    def close(self) -> None:
        """Logs what was counted and not yet logged."""
        self._lines.close()

    def _say_together(self, counted: CountedDenials) -> None:
        _log.warning(_ODD, count=counted.count, callers=counted.callers, problems=dict(counted.reasons))


_ODD = "Redis gave an unusable answer; redis.when_unavailable applies to its caller"
