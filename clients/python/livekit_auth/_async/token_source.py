"""A token that renews itself: for whoever needs a valid one again and again.

Invariants: one request is in flight at most; a token that has expired is never returned; while the token held is still
valid nobody waits for another caller's renewal, and a renewal that fails is nobody's error.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from livekit_auth._clock import steady
from livekit_auth._errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth._requests import TokenRequest
    from livekit_auth._results import IssuedToken

MAX_BACKOFF_SECONDS = 30.0
"""The longest pause between renewals that fail."""

_log = logging.getLogger("livekit_auth")


class Issuer(Protocol):
    """What a TokenSource needs of an AuthClient."""

    async def issue(self, request: TokenRequest) -> IssuedToken:
        """Issues one token. Raises AuthError."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A token and its times, by the source's own clock in seconds."""

    token: IssuedToken
    renew_at: float
    expires_at: float


class TokenSource:
    """Gives a valid token for one request, renewing it ahead of its expiry.

    Times are counted from the moment the token was asked for, by a clock that never goes back: neither the
    server's clock nor a change of this machine's matters.
    """

    def __init__(
        self,
        client: Issuer,
        request: TokenRequest,
        *,
        renew_ahead: timedelta | None = None,
        clock: Callable[[], float] = steady,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Asks for nothing yet.

        `renew_ahead` is how long before its expiry a token is renewed at the earliest, by default a third of its
        lifetime and never more than half; the moment is drawn at random from the first half of that time, so that many
        sources don't renew together. `clock` (seconds) and `uniform` are there for tests. Raises ValueError for a
        request with validate_only and for a renew_ahead that isn't above zero.
        """
        if request.validate_only:
            raise ValueError("a request with validate_only gives no token to hold")
        if renew_ahead is not None and renew_ahead <= timedelta(0):
            raise ValueError(f"renew_ahead must be above zero, not {renew_ahead}")
        self._client = client
        self._request = request
        self._renew_ahead = renew_ahead
        self._clock = clock
        self._uniform = uniform
        self._lock = asyncio.Lock()
        self._held: _Held | None = None
        self._failure: AuthError | None = None
        self._failures = 0
        self._renewals = 0

    async def token(self) -> IssuedToken:
        """A token that is valid now, renewed if it is time.

        Raises the renewal's AuthError when there is none: the first request failed, or the last token has expired.
        """
        held = self._held
        now = self._clock()
        if held is not None and now < held.expires_at and (now < held.renew_at or self._lock.locked()):
            return held.token
        renewals = self._renewals
        async with self._lock:
            if self._renewals == renewals:  # else one that ended while this caller waited is its answer too
                await self._renew()
            return self._answer()

    def _answer(self) -> IssuedToken:
        if self._held is not None and self._clock() < self._held.expires_at:
            return self._held.token
        if self._failure is None:
            raise RuntimeError("the server issued a token that has expired already")
        raise copy.copy(self._failure)  # one instance raised by several callers would mix their tracebacks

    async def _renew(self) -> None:
        asked_at = self._clock()
        try:
            token = await self._client.issue(self._request)
        except AuthError as error:
            self._failed(error)
        else:
            self._failure, self._failures = None, 0
            self._held = self._hold(token, asked_at)
        self._renewals += 1

    def _hold(self, token: IssuedToken, asked_at: float) -> _Held:
        lifetime = token.expire_time - token.issue_time
        ahead = min(self._renew_ahead or lifetime / 3, lifetime / 2).total_seconds()
        expires_at = asked_at + lifetime.total_seconds()
        return _Held(token, expires_at - self._uniform(ahead / 2, ahead), expires_at)

    def _failed(self, error: AuthError) -> None:
        """Notes a failure, and puts the next attempt off while the token held is still good."""
        self._failure = error
        self._failures += 1
        if self._held is None:
            return
        pause = self._uniform(0.5, 1.0) * min(2.0 ** min(self._failures, 10), MAX_BACKOFF_SECONDS)
        if error.retry_after is not None:
            pause = max(pause, error.retry_after.total_seconds())
        self._held = replace(self._held, renew_at=self._clock() + pause)
        _log.warning("A token couldn't be renewed and stays in use until it expires: %s", error)
