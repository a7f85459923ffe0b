"""The tokens that a worker connects with: a new one per connection.

Invariants: at most one request is in flight; neither an unavailable server nor half-replaced certificate files count
as a refusal: the worker waits; workers of a fleet that lose their connections at the same time spread their requests.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from livekit_auth._connection.retry import CHANCE, MAX_RETRY_AFTER_SECONDS
from livekit_auth._messages.errors import ConfigError, RateLimited, Unavailable
from livekit_auth._process.clock import steady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from livekit_auth._async.token_source import Issuer
    from livekit_auth._messages.errors import AuthError
    from livekit_auth._messages.requests import TokenRequest
    from livekit_auth._messages.results import IssuedToken

SPREAD_SECONDS = 1.0
"""The time over which a fleet spreads its requests after all connections were lost at once."""
MAX_PAUSE_SECONDS = 10.0
"""The longest pause between requests while the server is unavailable."""
LEAST_LIFETIME_SECONDS = 30.0
"""The remaining lifetime that a token needs to be used for another connection."""

_log = logging.getLogger("livekit_auth")


class WorkerTokens:
    """Requests a token each time a worker connects."""

    def __init__(
        self,
        client: Issuer,
        request: TokenRequest,
        *,
        clock: Callable[[], float] = steady,
        uniform: Callable[[float, float], float] = CHANCE.uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Requests nothing yet. `clock` (seconds), `uniform` and `sleep` exist for tests."""
        self._client = client
        self._request = request
        self._clock = clock
        self._uniform = uniform
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._last: IssuedToken | None = None
        self._good_until = 0.0
        self._unused = False

    async def url(self) -> str:
        """The project's LiveKit URL, from the token that the next `fresh` returns."""
        async with self._lock:
            token = await self._ask()
            self._unused = True
            return token.url

    async def fresh(self) -> IssuedToken:
        """Returns a token that no connection has used.

        While the server is unavailable, the request is repeated with exponential backoff; a worker whose last token is
        valid for long enough connects with that one instead. Raises AuthError if the server refuses.
        """
        async with self._lock:
            unused, self._unused = self._unused, False
            if self._last is not None and unused and self._clock() < self._good_until:
                return self._last
            if self._last is not None:
                await self._sleep(self._uniform(0, SPREAD_SECONDS))
            return await self._ask()

    async def _ask(self) -> IssuedToken:
        failures = 0
        while True:
            asked_at = self._clock()
            try:
                token = await self._client.issue(self._request)
            except (RateLimited, Unavailable, ConfigError) as error:
                if self._last is None and isinstance(error, ConfigError):
                    raise
                if self._last is not None and self._clock() < self._good_until:
                    _log.warning("No new token for the worker's connection; reusing the previous one: %s", error)
                    return self._last
                failures += 1
                pause = self._pause(failures, error)
                _log.warning("No token for the worker's connection; retrying in %.1f s: %s", pause, error)
                await self._sleep(pause)
            else:
                lifetime = (token.expire_time - token.issue_time).total_seconds()
                self._last, self._good_until = token, asked_at + lifetime - LEAST_LIFETIME_SECONDS
                return token

    def _pause(self, failures: int, error: AuthError | ConfigError) -> float:
        """Seconds, with full jitter so that a waiting fleet spreads its requests, and never before `retry_after`."""
        pause = self._uniform(0, min(0.5 * 2.0 ** min(failures, 10), MAX_PAUSE_SECONDS))
        if isinstance(error, ConfigError) or error.retry_after is None:
            return pause
        return min(error.retry_after.total_seconds(), MAX_RETRY_AFTER_SECONDS) + pause
