"""Rate limits in Redis: one window for all servers that share it, by the Redis server's clock.

An answer that no window gives counts as none: for the caller whose window it is, and for no other, what applies
without Redis then applies.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from livekit_auth_server.core.limits import Excess
from livekit_auth_server.service.ports import StoreUnavailable
from livekit_auth_server.stores.redis_link import OddAnswer, RedisAway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.limits import Charge
    from livekit_auth_server.service.ports import LimitStore
    from livekit_auth_server.stores.redis_link import RedisLink

SCRIPT = files(__package__).joinpath("limits.lua").read_text(encoding="utf-8")


_SLACK = 1  # seconds that a wait may be over its window: clocks are set, and Lua's numbers are rounded
Odd = Callable[[str, str], None]
"""Is told whose keys Redis gave an unusable answer about, and why it was unusable."""


class RedisLimits:
    """Asks Redis, in one round trip per call. While Redis is unavailable, asks `fallback`, or refuses without one."""

    def __init__(
        self, link: RedisLink, fallback: LimitStore | None, script: str = SCRIPT, odd: Odd = lambda *_: None
    ) -> None:
        self._link, self._fallback, self._odd = link, fallback, odd
        self._script, self._digest = script, sha1(script.encode(), usedforsecurity=False).hexdigest()

    async def take(self, caller: str, charges: Sequence[Charge]) -> Excess | None:
        """Counts all charges, or none, and returns the limit that frees up last. Raises StoreUnavailable."""
        # The braces keep a caller's windows together where a proxy in front shards by key.
        keys = [f"{self._link.prefix}limit:{{{caller}}}:{limit.key}" for limit, _ in charges]
        arguments = [number for limit, cost in charges for number in (limit.amount, limit.seconds, cost)]
        try:
            return _excess(await self._run(len(keys), *keys, *arguments), charges)
        except RedisAway as away:
            if isinstance(away, OddAnswer):
                self._odd(caller, str(away))
            if self._fallback is None:
                raise StoreUnavailable from None
            return await self._fallback.take(caller, charges)

    async def _run(self, *arguments: str | int) -> Any:  # noqa: ANN401 - the script's answer
        """Runs the script. A restarted Redis doesn't know it until it is sent."""
        try:
            return await self._link.run("EVALSHA", self._digest, *arguments)
        except NoScriptError:
            pass
        try:
            return await self._link.run("EVAL", self._script, *arguments)
        except NoScriptError:
            raise OddAnswer("a script that was sent isn't known") from None


def _excess(answer: object, charges: Sequence[Charge]) -> Excess | None:
    """The script's answer. Raises OddAnswer for one that the script wouldn't give."""
    match answer:
        case [0, 0]:
            return None
        case [int(which), int(microseconds)] if 1 <= which <= len(charges):
            limit = charges[which - 1].limit
            if 0 < microseconds <= (limit.seconds + _SLACK) * 1_000_000:
                return Excess(limit, microseconds / 1_000_000)
    raise OddAnswer("an answer that no window gives")
