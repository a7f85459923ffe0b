"""Rate limits in Redis: one window for all servers that share it, by the Redis server's clock."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from livekit_auth_server.adapters.redis_link import RedisAway
from livekit_auth_server.core.limits import Excess
from livekit_auth_server.service.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.adapters.redis_link import RedisLink
    from livekit_auth_server.core.limits import Charge
    from livekit_auth_server.service.ports import LimitStore

SCRIPT = files(__package__).joinpath("limits.lua").read_text(encoding="utf-8")


class RedisLimits:
    """Asks Redis, in one round trip a call; while it is away `fallback`, or refuses when there is none."""

    def __init__(self, link: RedisLink, fallback: LimitStore | None, script: str = SCRIPT) -> None:
        self._link, self._fallback = link, fallback
        self._script, self._digest = script, sha1(script.encode(), usedforsecurity=False).hexdigest()

    async def take(self, caller: str, charges: Sequence[Charge]) -> Excess | None:
        """Counts all of the charges, or none and says which limit will take the longest. Raises StoreUnavailable."""
        # The braces keep a caller's windows together where a proxy in front shards by key.
        keys = [f"{self._link.prefix}limit:{{{caller}}}:{limit.key}" for limit, _ in charges]
        arguments = [number for limit, cost in charges for number in (limit.amount, limit.seconds, cost)]
        try:
            which, microseconds = await self._run(len(keys), *keys, *arguments)
        except RedisAway:
            if self._fallback is None:
                raise StoreUnavailable from None
            return await self._fallback.take(caller, charges)
        return Excess(charges[which - 1].limit, microseconds / 1_000_000) if which else None

    async def _run(self, *arguments: str | int) -> Any:  # noqa: ANN401 - the script's answer
        """Runs the script, which a Redis that has been restarted doesn't know until it is sent."""
        try:
            return await self._link.run("EVALSHA", self._digest, *arguments)
        except NoScriptError:
            return await self._link.run("EVAL", self._script, *arguments)
