"""Opens the stores of limits, acknowledgements and decisions: Redis where it is configured, else memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.extras import require
from livekit_auth_server.service.limits import RateLimits
from livekit_auth_server.stores.acknowledgements_in_memory import MemoryAckStore
from livekit_auth_server.stores.decisions_in_memory import MemoryDecisions
from livekit_auth_server.stores.limits_in_memory import MemoryLimits
from livekit_auth_server.stores.limits_metrics import LimitMetrics

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from redis.asyncio import Redis

    from livekit_auth_server.config.redis import RedisSettings
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.service.ports import AckStore, Clock, DecisionStore, LimitStore
    from livekit_auth_server.stores.decisions_in_redis import RedisDecisions
    from livekit_auth_server.stores.limits_in_redis import Odd
    from livekit_auth_server.stores.limits_metrics import RedisMetrics
    from livekit_auth_server.stores.redis_link import RedisLink

_PROBE = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores, and their Redis if there is one. `required`: calls are refused without it.

    `writer` is `decisions` where they are written to Redis.
    """

    limits: RateLimits
    acknowledged: AckStore
    decisions: DecisionStore
    link: RedisLink | None
    required: bool = False
    gauges: RedisMetrics | None = None
    writer: RedisDecisions | None = None

    def problems(self) -> list[str]:
        """Why calls with limits are refused now; empty when they aren't."""
        away = self.required and self.link is not None and not self.link.up
        return ["Redis unavailable, and redis.when_unavailable is refuse"] if away else []

    async def close(self) -> None:
        """Logs what is left and closes the connections to Redis."""
        if self.gauges is not None:
            self.gauges.close()
        if self.writer is not None:
            await self.writer.close()
        if self.link is not None:
            await self.link.close()


async def open_stores(settings: Settings, clock: Clock, registry: CollectorRegistry) -> Stores:
    """Connects to Redis if it is configured, in the background if it is unavailable. Raises ConfigError."""
    metrics, local = LimitMetrics(registry), MemoryLimits(clock)
    store: LimitStore = local
    remember = settings.webhooks.remember
    acknowledged: AckStore = MemoryAckStore(clock, remember, settings.webhooks.remember_per_caller)
    own = MemoryDecisions(clock)
    decisions: DecisionStore = own
    link = gauges = writer = None
    if settings.redis is not None:
        gauges = metrics.redis(clock)
        link = await _open_link(settings, settings.redis, gauges)
        store, acknowledged = _shared(link, settings.redis, local, clock, remember, odd=gauges.odd)
        decisions = writer = _shared_decisions(link, own)
    limits = RateLimits(
        store,
        local,
        metrics,
        tuple(limit.limit() for limit in settings.default_limits),
        tuple(limit.limit() for limit in settings.unlisted_limits),
    )
    required = settings.redis is not None and settings.redis.when_unavailable == "refuse"
    return Stores(limits, acknowledged, decisions, link, required, gauges, writer)


async def probe_redis(settings: Settings) -> str:
    """Why the configured Redis can't be used now; empty when it can, or none is. Changes nothing in it.

    Raises ConfigError as `open_stores` does.
    """
    if settings.redis is None:
        return ""
    client = _client(settings, settings.redis)
    from redis.exceptions import AuthenticationError, RedisError  # noqa: PLC0415

    from livekit_auth_server.stores.redis_link import problem  # noqa: PLC0415

    try:
        async with asyncio.timeout(_PROBE):
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
    except AuthenticationError:
        raise _refused() from None
    except (RedisError, OSError) as error:
        return problem(error)
    finally:
        await client.aclose()
    return ""


def _client(settings: Settings, redis: RedisSettings) -> Redis:
    # Imported here: the library is an extra, and takes memory.
    require("redis", "redis")
    from livekit_auth_server.stores.redis_client import TlsFiles, new_client  # noqa: PLC0415

    def at(path: Path | None) -> Path | None:
        return settings.at(path) if path is not None else None

    return new_client(redis.url, at(redis.password_file), TlsFiles(at(redis.ca), at(redis.certificate), at(redis.key)))


def _refused() -> ConfigError:
    return ConfigError("redis", "Redis refuses the user or the password; check url and password_file")


async def _open_link(settings: Settings, redis: RedisSettings, gauges: RedisMetrics) -> RedisLink:
    client = _client(settings, redis)
    from redis.exceptions import AuthenticationError  # noqa: PLC0415

    from livekit_auth_server.stores.redis_link import RedisLink  # noqa: PLC0415

    link = RedisLink(client, redis.prefix, redis.timeout, lambda up: gauges.changed(up, redis.when_unavailable))
    try:
        await link.open()
    except BaseException as error:
        await link.close()
        if isinstance(error, AuthenticationError):
            raise _refused() from None
        raise
    return link


def _shared(  # noqa: PLR0913 - the parts that it puts together
    link: RedisLink, redis: RedisSettings, local: LimitStore, clock: Clock, remember: int, *, odd: Odd
) -> tuple[LimitStore, AckStore]:
    from livekit_auth_server.stores.acknowledgements_in_redis import RedisAckStore  # noqa: PLC0415
    from livekit_auth_server.stores.limits_in_redis import RedisLimits  # noqa: PLC0415

    fallback = local if redis.when_unavailable == "local" else None
    return RedisLimits(link, fallback, odd=odd), RedisAckStore(link, clock, remember, odd)


def _shared_decisions(link: RedisLink, own: MemoryDecisions) -> RedisDecisions:
    from livekit_auth_server.stores.decisions_in_redis import RedisDecisions  # noqa: PLC0415

    return RedisDecisions(link, own)
