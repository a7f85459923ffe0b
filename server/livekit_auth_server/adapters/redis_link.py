"""A Redis or Valkey that may be slow or away: no call waits for it longer than `timeout`, and few wait at all.

The first command that fails opens the circuit: from then on every command fails at once, and a probe in the background
tries until Redis answers again. Loss and return are logged once each.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

T = TypeVar("T")

CONNECTIONS = 8
"""Kept open. A command takes well under a millisecond, so that more than a few are rarely busy at once."""

_PROBE_TIMEOUT = 1.0  # seconds; a probe may connect, which takes longer than a command
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between probes
_STEADY = 10.0  # seconds after which a return counts as one, and the next loss is probed quickly again
_log = structlog.get_logger("livekit_auth_server")


class RedisAway(Exception):  # noqa: N818 - a condition, not a fault of the program
    """Redis can't be asked now."""


class RedisLink:
    """One Redis for all who use it in this process. `timeout` is in seconds; `changed` hears whether it is there."""

    def __init__(self, client: Redis, prefix: str, timeout: float, changed: Callable[[bool], None]) -> None:
        self.client, self.prefix = client, prefix
        self._timeout, self._changed = timeout, changed
        self._up = False
        self._since = 0.0
        self._pause = _FIRST_PAUSE
        self._probing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects. A Redis that is away is waited for in the background. Raises AuthenticationError."""
        try:
            await self._probe()
        except AuthenticationError:
            raise
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._lost(error)
        else:
            self._found()

    async def close(self) -> None:
        """Ends the probing and every connection."""
        if self._probing is not None:
            self._probing.cancel()
        await self.client.aclose()

    async def run(self, command: Callable[[], Awaitable[T]]) -> T:
        """What the command returns. Raises RedisAway, at once while the circuit is open."""
        if not self._up:
            raise RedisAway
        try:
            async with asyncio.timeout(self._timeout):
                return await command()
        except (RedisError, OSError) as error:
            if self._up:
                self._lost(error)
            raise RedisAway from None

    def _lost(self, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        self._pause = _FIRST_PAUSE if loop.time() - self._since > _STEADY else min(self._pause * 2, _LONGEST_PAUSE)
        self._up = False
        self._changed(False)
        _log.warning("redis is away", problem=problem(error))
        self._probing = loop.create_task(self._probe_until_found())

    def _found(self) -> None:
        self._up, self._since = True, asyncio.get_running_loop().time()
        self._changed(True)
        _log.info("redis is there")

    async def _probe_until_found(self) -> None:
        pause = self._pause
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self._probe()
            except (RedisError, OSError):
                continue
            self._found()
            return

    async def _probe(self) -> None:
        """Writes over every connection: a replica, or a Redis without memory, answers and is of no use."""
        async with asyncio.timeout(_PROBE_TIMEOUT):
            key = f"{self.prefix}probe"
            results = await asyncio.gather(
                *(self.client.set(key, "1", ex=60) for _ in range(CONNECTIONS)), return_exceptions=True
            )
        for result in results:
            if isinstance(result, BaseException):
                raise result


def problem(error: Exception) -> str:
    """What went wrong, for the log. Redis' own words can repeat a command, and with it a password: only kinds show."""
    if type(error) is RedisConnectionError and isinstance(error.__cause__ or error.__context__, OSError):
        return str(error)  # the client's words about the socket
    return type(error).__name__
