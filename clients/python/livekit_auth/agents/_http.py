"""Two stand-ins for aiohttp's session that put a token of the service where livekit's own code put a made-up one."""
# ruff: noqa: ANN401 - options of aiohttp and livekit-agents pass through as they are

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
"""What `ctx.api` is given as its token. Sent as it is, LiveKit would refuse it."""


_log = logging.getLogger("livekit_auth")


class TokenGiver(Protocol):
    """What an authorised session needs of a TokenSource."""

    async def token(self) -> IssuedToken:
        """A token that is valid now. Raises AuthError."""


class WorkerRefusedError(ConnectionError):
    """LiveKit refused the worker's connection. Its text has no header, unlike aiohttp's."""


class WorkerSession:
    """Opens the worker's connection with a fresh token. Only what livekit-agents calls on its session is here."""

    def __init__(self, session: aiohttp.ClientSession, tokens: WorkerTokens) -> None:
        self._session = session
        self._tokens = tokens

    async def ws_connect(self, url: str, *, headers: dict[str, str], **options: Any) -> aiohttp.ClientWebSocketResponse:
        """Connects with a fresh token in place of the one that was passed. Raises AuthError, WorkerRefusedError."""
        try:
            token = await self._tokens.fresh()
        except AuthError as error:
            _log.error("The service refuses the worker a token: %s", error)
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
    """Sends requests of LiveKitAPI with a token that is valid now, through a session that belongs to someone else.

    The stand-in is replaced where it is found and nowhere else: aiohttp drops the header when a redirect leads to
    another origin, and it stays dropped.
    """

    def __init__(self, session: aiohttp.ClientSession, tokens: TokenGiver, *, role: str | None = None) -> None:
        """`role` is the tokens' role, for what a refusal by LiveKit's API says."""
        self._session = session
        self._tokens = tokens
        self._role = role

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        """The session's own, which decides about attempts in other regions."""
        return self._session.timeout

    def post(self, url: str, **options: Any) -> Any:
        """As aiohttp.ClientSession.post. Awaiting it raises AuthError when there is no token."""
        return self._session.post(url, middlewares=(self._authorise,), **options)

    def get(self, url: str, **options: Any) -> Any:
        """As aiohttp.ClientSession.get. Awaiting it raises AuthError when there is no token."""
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
            request.headers["Authorization"] = stand_in  # it was sent; aiohttp's errors show the headers in their repr
        if self._role is not None and answer.status in required_grants.REFUSED:
            _log.warning(required_grants.refusal(request.url.path, answer.status, self._role))
        return answer


def _bearer(token: IssuedToken) -> str:
    return f"Bearer {token.token}"
