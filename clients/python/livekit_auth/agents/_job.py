"""A job's access to LiveKit: `ctx.api` with tokens of one role, for the room of the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

from livekit.agents.utils import http_context
from livekit.api import LiveKitAPI

from livekit_auth._connection.config import DEFAULT_TIMEOUT
from livekit_auth._messages.errors import ConfigError
from livekit_auth.agents import _cloud, _livekit_internals
from livekit_auth.agents._http import STAND_IN, ApiSession
from livekit_auth.agents._process_tokens import process_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiohttp
    from livekit.agents import JobContext

    from livekit_auth.agents._settings import Settings

    Function = Callable[[JobContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """The entrypoint of a job, pickled to its process: the user's function and the settings for tokens."""

    function: Function
    settings: Settings

    async def __call__(self, ctx: JobContext) -> None:
        """Sets `ctx.api`, then runs the user's function."""
        _livekit_internals.set_api(
            ctx, cast("LiveKitAPI", _NoApi()) if self.settings.api_role is None else self._api(ctx)
        )
        if self.settings.inference_role is not None:
            await process_tokens(self.settings).inference.ready(DEFAULT_TIMEOUT)
        await self.function(ctx)

    def __reduce__(self) -> tuple[Callable[[Function, Settings], Entrypoint], tuple[Function, Settings]]:
        return _unpickled, (self.function, self.settings)

    def _api(self, ctx: JobContext) -> LiveKitAPI:
        source = process_tokens(self.settings).source(self.settings.api_role, room=ctx.job.room.name)
        session = ApiSession(http_context.http_session(), source, role=self.settings.api_role)
        return LiveKitAPI.with_token(
            STAND_IN, _livekit_internals.job_url(ctx) or None, session=cast("aiohttp.ClientSession", session)
        )


def _unpickled(function: Function, settings: Settings) -> Entrypoint:
    """Unpickles the entrypoint. Sets the process up before livekit-agents does anything for the job."""
    _cloud.set_up(settings)
    return Entrypoint(function, settings)


class _NoApi:
    """Replaces `ctx.api` in a worker without an api_role."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(
            "ctx.api has no token: pass AgentServer an api_role, the role of the policy that the worker's jobs use"
        )
