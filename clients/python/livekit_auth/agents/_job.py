"""A job's own access to LiveKit: `ctx.api` with tokens of one role, for the job's room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

from livekit.agents.utils import http_context
from livekit.api import LiveKitAPI

from livekit_auth._async.token_source import TokenSource
from livekit_auth._errors import ConfigError
from livekit_auth._requests import TokenRequest
from livekit_auth.agents import _private
from livekit_auth.agents._http import STAND_IN, ApiSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiohttp
    from livekit.agents import JobContext

    from livekit_auth._results import IssuedToken
    from livekit_auth.agents._settings import Settings


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """The entrypoint of a job as its process gets it, by pickle: the user's function and where tokens come from."""

    function: Callable[[JobContext], Awaitable[None]]
    settings: Settings

    async def __call__(self, ctx: JobContext) -> None:
        """Gives the job its `ctx.api`, and runs the user's function."""
        _private.set_api(ctx, cast("LiveKitAPI", _NoApi()) if self.settings.api_role is None else self._api(ctx))
        await self.function(ctx)

    def _api(self, ctx: JobContext) -> LiveKitAPI:
        request = TokenRequest(role=self.settings.api_role, room=ctx.job.room.name, project=self.settings.project)
        session = ApiSession(http_context.http_session(), TokenSource(_OneCall(self.settings), request))
        return LiveKitAPI.with_token(
            STAND_IN, _private.job_url(ctx) or None, session=cast("aiohttp.ClientSession", session)
        )


@dataclass(frozen=True, slots=True)
class _OneCall:
    """Issues each token over a connection of its own: a job asks every few minutes, and there are many jobs."""

    settings: Settings

    async def issue(self, request: TokenRequest) -> IssuedToken:
        async with self.settings.client() as client:
            return await client.issue(request)


class _NoApi:
    """Stands for `ctx.api` in a worker that was given no role for it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(
            "ctx.api has no token: give AgentServer an api_role, the role of the policy that this worker's jobs may use"
        )
