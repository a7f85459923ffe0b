"""Recent denials in Redis, so that every server that uses it can explain them.

Guarantees: a denial waits for nothing here; callers take turns in being written, one decision at a time, so that one
caller's denials delay neither the others' nor what else Redis is asked; Redis keeps what this process keeps in memory,
and forgets it with it. While Redis is unavailable, each process explains what it denied itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError

from livekit_auth_server.stores.decisions_in_memory import LIFETIME
from livekit_auth_server.stores.redis_link import RedisAway

if TYPE_CHECKING:
    from livekit_auth_server.stores.decisions_in_memory import MemoryDecisions
    from livekit_auth_server.stores.redis_link import RedisLink

_WAITING = 32  # decisions of a caller that wait to be written; of more, the newest
_FORGOTTEN = 4096  # keys that wait to be deleted; further ones expire


class RedisDecisions:
    """A key for each decision that `local` keeps, which Redis forgets after LIFETIME."""

    def __init__(self, link: RedisLink, local: MemoryDecisions) -> None:
        self._link, self._local = link, local
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()  # by caller, whose turn is next first
        self._written: set[str] = set()  # of what `local` keeps
        self._forgotten: deque[str] = deque(maxlen=_FORGOTTEN)
        self._writing: asyncio.Task[None] | None = None

    def keep(self, caller: str, decision_id: str, decision: bytes) -> None:
        """Keeps a decision: here at once, in Redis soon."""
        for gone in self._local.put(caller, decision_id, decision):
            if gone in self._written:
                self._written.discard(gone)
                self._forgotten.append(gone)
        if not self._link.up:
            return
        self._waiting.setdefault(caller, deque(maxlen=_WAITING)).append(decision_id)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="decisions")

    async def find(self, decision_id: str) -> bytes | None:
        """The decision; None if there is none, or none any more.

        Redis is asked first, always: how long it takes doesn't tell who keeps the decision.
        """
        try:
            answer = await self._link.run("GET", self._key(decision_id))
        except (RedisAway, NoScriptError):
            answer = None
        return answer if isinstance(answer, bytes) else self._local.get(decision_id)

    async def close(self) -> None:
        """Stops writing. What isn't written by now is lost."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing

    async def _write(self) -> None:
        """Writes what waits, and deletes as much. Without Redis, none of it is written later."""
        try:
            while self._waiting:
                await self._write_one(self._next())
        except (RedisAway, NoScriptError):
            self._waiting.clear()

    def _next(self) -> str:
        """The oldest decision of the caller whose turn it is."""
        caller, decisions = self._waiting.popitem(last=False)
        decision_id = decisions.popleft()
        if decisions:
            self._waiting[caller] = decisions  # behind the others
        return decision_id

    async def _write_one(self, decision_id: str) -> None:
        """Raises RedisAway."""
        for gone in [self._forgotten.popleft() for _ in range(min(2, len(self._forgotten)))]:
            await self._link.run("DEL", self._key(gone))
        if (decision := self._local.get(decision_id)) is not None:
            self._written.add(decision_id)
            await self._link.run("SET", self._key(decision_id), decision, "EX", LIFETIME)

    def _key(self, decision_id: str) -> str:
        return f"{self._link.prefix}decision:{decision_id}"
