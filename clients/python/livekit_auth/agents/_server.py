"""`AgentServer` of livekit-agents, registering with tokens from the server."""
# ruff: noqa: ANN401 - options of livekit-agents are passed on unchanged

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from livekit import agents

from livekit_auth._messages.errors import AuthError, ConfigError
from livekit_auth._messages.requests import TokenRequest
from livekit_auth._workers.tokens import WorkerTokens
from livekit_auth.agents import _cloud, _livekit_internals
from livekit_auth.agents._http import WorkerSession
from livekit_auth.agents._job import Entrypoint
from livekit_auth.agents._settings import Settings, refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from livekit.agents.job import RunningJobInfo

    Function = Callable[[agents.JobContext], Awaitable[None]]

_log = logging.getLogger("livekit_auth")

_NO_CONNECT = (
    "`connect` creates a job with an API key, and this worker has none. Run `dev` and dispatch the agent to the "
    "room, or call simulate_job(room, room_info=…, token=…) with a token that livekit-auth issued for the room"
)


class AgentServer(agents.AgentServer):
    """A worker that holds a client certificate and no API secret. Otherwise the same as livekit-agents' own.

    Each connection to LiveKit uses a new token. While livekit-auth is unavailable the worker waits: jobs continue, and
    livekit-agents' connection attempts aren't used up. Refuses to run if LIVEKIT_API_SECRET is set. Under the command
    line of livekit-agents, a worker that fails permanently exits with code 1.
    """

    def __init__(  # noqa: PLR0913 - the settings of AuthClient, keyword-only
        self,
        *,
        role: str = "agent-worker",
        api_role: str | None = None,
        inference_role: str | None = None,
        observability_role: str | None = None,
        project: str = "",
        address: str | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        **options: Any,
    ) -> None:
        """Takes the settings of AuthClient (by default from LIVEKIT_AUTH_*); `options` are those of livekit-agents.

        `role` is the role of the policy that registers the worker; it needs the grant `agent`. `ctx.api` uses tokens of
        `api_role`, for the room of the job; without it `ctx.api` raises ConfigError. LiveKit Inference uses tokens of
        `inference_role` (the grant inference.perform), recording those of `observability_role` (observability.write);
        without them the models of livekit.agents.inference raise ConfigError, and nothing is recorded. `project` may be
        empty if the worker has exactly one, or a default one. `ws_url` (LIVEKIT_URL) defaults to the URL of the
        project. Raises ConfigError for an API key or secret, and for an unsupported version of livekit-agents.
        """
        refuse_secrets(options)
        super().__init__(**options)
        _livekit_internals.check(self)
        self._auth_url = _livekit_internals.take_url(self)
        self._auth_settings = Settings(
            role=role,
            api_role=api_role,
            inference_role=inference_role,
            observability_role=observability_role,
            project=project,
            address=address,
            ca=_text(ca),
            cert=_text(cert),
            key=_text(key),
        )
        self._auth_tokens: WorkerTokens | None = None
        _cloud.set_up(self._auth_settings)

    def rtc_session(self, func: Function | None = None, **options: Any) -> Any:
        """As in livekit-agents. The jobs' `ctx.api` uses tokens from livekit-auth."""

        def register(function: Function) -> Function:
            super(AgentServer, self).rtc_session(Entrypoint(function, self._auth_settings), **options)
            return function

        return register if func is None else register(func)

    def update_options(self, **options: Any) -> None:
        """As in livekit-agents. Raises ConfigError for an API secret; an API key alone is ignored."""
        refuse_secrets({"api_secret": options.pop("api_secret", None)})
        options.pop("api_key", None)
        self._auth_url = options.pop("ws_url", None) or self._auth_url
        super().update_options(**options)

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """As in livekit-agents. Raises ConfigError if the client's settings are unusable, AuthError on a refusal.

        The command line of livekit-agents would log such an error and exit with code 0. Called by it, this instead
        lets running jobs end, as on SIGTERM, and raises SystemExit(1).
        """
        try:
            await self._run(devmode=devmode, unregistered=unregistered)
        except Exception as error:
            if not _livekit_internals.under_the_command_line():
                raise
            told = isinstance(error, (AuthError, ConfigError, RuntimeError))
            _log.error("The worker exits with code 1: %s", error, exc_info=None if told else error)
            await self._leave(drain=not devmode)
            raise SystemExit(1) from None

    async def _leave(self, *, drain: bool) -> None:
        if drain:
            with contextlib.suppress(TimeoutError):
                await self.drain()
        await self.aclose()

    async def _run(self, *, devmode: bool, unregistered: bool) -> None:
        refuse_secrets({})
        _livekit_internals.take_url(self)
        if self._auth_url:
            os.environ["LIVEKIT_URL"] = self._auth_url
        if _livekit_internals.is_connect(devmode=devmode, unregistered=unregistered):
            raise ConfigError(_NO_CONNECT)
        if unregistered:
            await super().run(devmode=devmode, unregistered=True)
            return
        # In a thread, because with a SPIFFE agent it waits for the first SVID.
        async with await asyncio.to_thread(self._auth_settings.client) as client:
            request = TokenRequest(role=self._auth_settings.role, project=self._auth_settings.project)
            self._auth_tokens = WorkerTokens(client, request)
            self.once("worker_started", self._connect)
            try:
                await super().run(devmode=devmode, unregistered=True)
            finally:
                self._auth_tokens = None

    def _connect(self) -> None:
        _livekit_internals.check_running(self)
        _livekit_internals.connect(self)

    async def _connection_task(self) -> None:
        """Keeps the worker connected to LiveKit, each time with a fresh token.

        Requests the first token here, so that a refused worker ends at once. A worker that is refused later uses up
        livekit-agents' attempts, because it may have jobs.
        """
        if (tokens := self._auth_tokens) is None:
            raise RuntimeError("the worker isn't running")
        url = await tokens.url()
        _livekit_internals.set_url(self, self._auth_url or url)
        _livekit_internals.set_http_session(self, WorkerSession(_livekit_internals.http_session(self), tokens))
        _livekit_internals.set_placeholders(self)
        await super()._connection_task()

    async def simulate_job(self, room: str, **options: Any) -> None:
        """As in livekit-agents, but needs a token or a fake job: this worker can't mint a token for any room."""
        if not options.get("fake_job") and not options.get("token"):
            raise ConfigError(
                "a simulated job needs a token for its room: request one from livekit-auth and pass token"
            )
        if options.get("token") and self._auth_url:
            _livekit_internals.set_url(self, self._auth_url)
        await super().simulate_job(room, **options)

    async def _reload_jobs(self, jobs: list[RunningJobInfo]) -> None:
        """Development only: after a code change, running jobs would need the secret to extend their tokens."""
        _log.warning("%d jobs end with this reload: they can't continue without a secret", len(jobs))


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
