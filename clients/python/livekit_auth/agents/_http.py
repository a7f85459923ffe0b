"""Two wrappers of aiohttp's session that replace a stand-in by a token from the server."""
# ruff: noqa: ANN401 - options of aiohttp and livekit-agents are passed on unchanged

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, cast

import aiohttp

from livekit_auth._messages.errors import AuthError
from livekit_auth._workers import required_grants

if TYPE_CHECKING:
    from livekit_auth._messages.results import IssuedToken
    from livekit_auth._workers.tokens import WorkerTokens

STAND_IN = "a-token-of-livekit-auth-goes-here"
"""The stand-in that `ctx.api` gets as its token. LiveKit would reject it."""


_log = logging.getLogger("livekit_auth")


class TokenGiver(Protocol):
    """The part of TokenSource that an authorised session needs."""

    async def token(self) -> IssuedToken:
        """Returns a token that is valid now. Raises AuthError."""


class WorkerRefusedError(ConnectionError):
    """LiveKit refused the worker's connection. Unlike aiohttp's error, its text contains no headers."""


class WorkerSession:
    """Opens the worker's connection with a fresh token. Has only the methods that livekit-agents calls."""

    def __init__(self, session: aiohttp.ClientSession, tokens: WorkerTokens) -> None:
        self._session = session
        self._tokens = tokens

    async def ws_connect(self, url: str, *, headers: dict[str, str], **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connects with a fresh token instead of the one passed. Raises AuthError, WorkerRefusedError."""
        try:
            token = await self._tokens.fresh()
        except AuthError as error:
            _log.error("livekit-auth refused a token for the worker: %s", error)
            raise
        try:
            headers = {**headers, "Authorization": _bearer(token)}
            return cast(
                "aiohttp.ClientWebSocketResponse", await self._session.ws_connect(url, headers=headers, **options)
            )
        except aiohttp.ClientResponseError as error:
            why = f"HTTP status {error.status}" if error.status else "too many redirects"
            raise WorkerRefusedError(f"LiveKit refused the worker with {why}") from None

    async def close(self) -> None:
        """Closes the session."""
        await self._session.close()


class ApiSession:
    """Sends requests of LiveKitAPI with a valid token, through a session that it doesn't own.

    Only an existing stand-in is replaced: aiohttp drops the header when a redirect leads to another origin, and it
    stays dropped.
    """

    def __init__(self, session: aiohttp.ClientSession, tokens: TokenGiver, *, role: str | None = None) -> None:
        """`role` is the role of the tokens, for the log when LiveKit's API refuses one."""
        self._session = session
        self._tokens = tokens
        self._role = role

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        """The session's own timeout, which controls attempts in other regions."""
        return self._session.timeout

    def post(self, url: str, **options: Any) -> Any:
        """As aiohttp.ClientSession.post. Awaiting it raises AuthError if there is no token."""
        return self._session.post(url, middlewares=(self._authorise,), **options)

    def get(self, url: str, **options: Any) -> Any:
        """As aiohttp.ClientSession.get. Awaiting it raises AuthError if there is no token."""
        return self._session.get(url, middlewares=(self._authorise,), **options)

    async def _authorise(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        stand_in = f"Bearer {STAND_IN}"
        if request.headers.get("Authorization") != stand_in:
            return await handler(request)
        request.headers["Authorization"] = _bearer(await self._tokens.token())
        try:
            answer = await handler(request)
        finally:
            request.headers["Authorization"] = stand_in  # aiohttp's errors show the headers in their repr
        if self._role is not None and answer.status in required_grants.REFUSED:
            _log.warning(required_grants.refusal(request.url.path, answer.status, self._role))
        return answer


def _bearer(token: IssuedToken) -> str:
    return f"Bearer {token.token}"
