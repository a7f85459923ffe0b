"""Acknowledged webhooks in Redis, shared by every server that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError

from livekit_auth_server.service.ports import StoreUnavailable
from livekit_auth_server.stores.redis_link import RedisAway

if TYPE_CHECKING:
    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.stores.limits_in_redis import Odd
    from livekit_auth_server.stores.redis_link import RedisLink


@dataclass(frozen=True, slots=True)
class RedisAckStore:
    """A key for each acknowledgement, which Redis forgets after `lifetime` seconds.

    Nothing here bounds a caller. A limit on AckWebhook does: at most the acknowledgements that it lets through in a
    lifetime are kept.
    """

    link: RedisLink
    clock: Clock
    lifetime: int
    odd: Odd = lambda *_: None

    async def is_acknowledged(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> bool:
        """Whether this caller acknowledged this event with these bytes within the lifetime. Raises StoreUnavailable."""
        key = self._key(caller, project, event_id, body_sha256)
        return await self._ask("EXISTS", key, good=(0, 1)) == 1

    async def acknowledge(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> int:
        """Remembers it; returns until when, in seconds since the epoch. Raises StoreUnavailable."""
        key = self._key(caller, project, event_id, body_sha256)
        await self._ask("SET", key, "1", "EX", self.lifetime, good=(b"OK",))
        return int(self.clock.now()) + self.lifetime

    async def _ask(self, *command: str | int, good: tuple[object, ...]) -> object:
        """The answer, one of the good ones. Raises StoreUnavailable."""
        try:
            answer = await self.link.run(*command)
        except (RedisAway, NoScriptError):
            raise StoreUnavailable from None
        if answer not in good:
            self.odd("", f"an answer that {command[0]} doesn't give")
            raise StoreUnavailable
        return answer

    def _key(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> str:
        """A hash: event ids are LiveKit's, of any form. Only the last of the parts can hold the character between."""
        parts = body_sha256 + f"{caller}\0{project}\0{event_id}".encode()
        return f"{self.link.prefix}ack:{sha256(parts).hexdigest()}"
