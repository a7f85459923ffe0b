"""A token that renews itself, for callers that need a valid one repeatedly.

Invariants: at most one request is in flight; an expired token is never returned; while the held token is valid, no
caller waits for a renewal or gets the error of a failed one; a cancelled caller doesn't cancel the request; when the
server says how long to wait, no request is sent earlier.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from livekit_auth._connection.retry import CHANCE, MAX_RETRY_AFTER_SECONDS
from livekit_auth._messages.errors import AuthError, unusable, with_retry_after
from livekit_auth._process.clock import steady
from livekit_auth._process.single_flight import AsyncSingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth._messages.requests import TokenRequest
    from livekit_auth._messages.results import IssuedToken

MAX_BACKOFF_SECONDS = 30.0
"""The longest pause between failed renewals, unless the server asks for a longer one."""

_log = logging.getLogger("livekit_auth")


class Issuer(Protocol):
    """The part of AuthClient that a TokenSource needs."""

    async def issue(self, request: TokenRequest) -> IssuedToken:
        """Issues one token. Raises AuthError."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A token and when it expires, in seconds of the source's own clock."""

    token: IssuedToken
    expires_at: float


class TokenSource:
    """Provides a valid token for one request, and renews it in the background before it expires.

    Lifetimes are counted from the moment of the request by a monotonic clock, so neither the server's clock nor a
    change of this machine's clock matters.
    """

    def __init__(
        self,
        client: Issuer,
        request: TokenRequest,
        *,
        renew_ahead: timedelta | None = None,
        clock: Callable[[], float] = steady,
        uniform: Callable[[float, float], float] = CHANCE.uniform,
    ) -> None:
        """Requests nothing yet.

        `renew_ahead` is how long before its expiry a token is renewed at the earliest, by default a third of its
        lifetime and never more than half. The moment is random within the first half of that time, so that many sources
        don't renew together. `clock` (seconds) and `uniform` exist for tests. Raises ValueError for a request with
        validate_only, and for a renew_ahead that isn't above zero.
        """
        if request.validate_only:
            raise ValueError("a request with validate_only returns no token")
        if renew_ahead is not None and renew_ahead <= timedelta(0):
            raise ValueError(f"renew_ahead must be above zero, not {renew_ahead}")
        self._client = client
        self._request = request
        self._renew_ahead = renew_ahead
        self._clock = clock
        self._uniform = uniform
        self._flight = AsyncSingleFlight()
        self._held: _Held | None = None
        self._failure: Exception | None = None
        self._failures = 0
        self._ask_at = clock()

    async def token(self) -> IssuedToken:
        """Returns a token that is valid now. Starts a renewal in the background when it is due.

        Raises the renewal's AuthError if there is no valid token: the first request failed, or the last token has
        expired. Until the error's `retry_after` has passed, it is raised again without a request.
        """
        held = self._valid()
        if held is not None:
            if self._due():
                self._flight.start(self._renew)
            return held.token
        if self._failure is None or self._due():
            await self._flight.join(self._renew)
            held = self._valid()
        if held is None:
            raise self._reason()
        return held.token

    def _valid(self) -> _Held | None:
        held = self._held
        return held if held is not None and self._clock() < held.expires_at else None

    def _due(self) -> bool:
        return self._clock() >= self._ask_at

    def _reason(self) -> Exception:
        """Why there is no token. A copy per caller, because a shared instance would mix their tracebacks."""
        failure = self._failure
        if failure is None:
            return RuntimeError("the request for a token was cancelled")
        if not isinstance(failure, AuthError):
            return failure.with_traceback(None)
        if failure.retry_after is None:
            return copy.copy(failure)
        return with_retry_after(failure, timedelta(seconds=max(self._ask_at - self._clock(), 0.0)))

    async def _renew(self) -> None:
        if not self._due():  # a renewal has ended since the caller checked
            return
        asked_at = self._clock()
        try:
            self._hold(await self._client.issue(self._request), asked_at)
        except Exception as error:  # noqa: BLE001 - a background renewal has no caller to raise it to
            self._failed(error)

    def _hold(self, token: IssuedToken, asked_at: float) -> None:
        lifetime = token.expire_time - token.issue_time
        if lifetime <= timedelta(0):
            raise unusable("the lifetime of the token isn't above zero")
        ahead = min(self._renew_ahead or lifetime / 3, lifetime / 2).total_seconds()
        expires_at = asked_at + lifetime.total_seconds()
        self._ask_at = expires_at - self._uniform(ahead / 2, ahead)
        self._held = _Held(token, expires_at)
        self._failure, self._failures = None, 0

    def _failed(self, error: Exception) -> None:
        """Records a failure and delays the next attempt, as the server asks or while the held token is valid.

        Not only AuthError: half-replaced certificate files are a ConfigError and are transient too.
        """
        self._failure = error
        self._failures += 1
        pause = 0.0
        if (held := self._valid()) is not None:
            pause = self._uniform(0.5, 1.0) * min(2.0 ** min(self._failures, 10), MAX_BACKOFF_SECONDS)
            pause = min(pause, held.expires_at - self._clock())
            _log.warning("Token renewal failed; using the current token until it expires: %s", error)
        if isinstance(error, AuthError) and error.retry_after is not None:
            pause = max(pause, min(error.retry_after.total_seconds(), MAX_RETRY_AFTER_SECONDS))
        self._ask_at = self._clock() + pause
