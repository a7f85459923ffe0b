"""`AgentServer`: the one of livekit-agents, registering with tokens of the service."""
# ruff: noqa: ANN401 - options of livekit-agents pass through as they are

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
    "`connect` makes up a job with an API key, and this worker has none. Run `dev` and dispatch the agent to the "
    "room; or call simulate_job(room, room_info=…, token=…) with a token that livekit-auth issued for the room"
)


class AgentServer(agents.AgentServer):
    """A worker that holds a client certificate and no API secret. For the rest it is livekit-agents' own.

    Every connection to LiveKit is made with a new token; while the auth service is away it waits, jobs go on, and the
    attempts that livekit-agents counts aren't used up. Refuses to run where LIVEKIT_API_SECRET is set. Run by
    livekit-agents' command line, a worker that can't go on ends its process with exit code 1.
    """

    def __init__(  # noqa: PLR0913 - the settings of AuthClient, all by keyword
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
        """Takes the settings of AuthClient (from LIVEKIT_AUTH_* if not given), and livekit-agents' own as `options`.

        `role` is the role of the policy that registers the worker, one with the grant `agent`; `api_role` the one that
        `ctx.api` uses, for the job's room; without it `ctx.api` raises ConfigError. LiveKit Inference gets tokens of
        `inference_role` (the grant inference.perform), recording those of `observability_role` (observability.write):
        without them the models of livekit.agents.inference raise ConfigError, and nothing is recorded. `project` may be
        empty when the worker has exactly one. `ws_url` (LIVEKIT_URL) is the project's own url if not given. Raises
        ConfigError for an API key or secret, and for a version of livekit-agents that can't work.
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
        """As in livekit-agents; `ctx.api` of the jobs is the service's."""

        def register(function: Function) -> Function:
            super(AgentServer, self).rtc_session(Entrypoint(function, self._auth_settings), **options)
            return function

        return register if func is None else register(func)

    def update_options(self, **options: Any) -> None:
        """As in livekit-agents. Raises ConfigError for an API secret; an API key alone is of no use and left out."""
        refuse_secrets({"api_secret": options.pop("api_secret", None)})
        options.pop("api_key", None)
        self._auth_url = options.pop("ws_url", None) or self._auth_url
        super().update_options(**options)

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """As in livekit-agents. Raises ConfigError when the service can't be asked, AuthError when it refuses.

        Called by the command line of livekit-agents, which would log that and end with exit code 0, it lets running
        jobs end, as on SIGTERM, and raises SystemExit(1) instead.
        """
        try:
            await self._run(devmode=devmode, unregistered=unregistered)
        except Exception as error:
            if not _livekit_internals.under_the_command_line():
                raise
            told = isinstance(error, (AuthError, ConfigError, RuntimeError))
            _log.error("The worker ends, with exit code 1: %s", error, exc_info=None if told else error)
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
        # In a thread, because it waits for the first SVID where a SPIFFE agent gives the certificate.
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
        """Connects to LiveKit again and again, each time with a fresh token.

        The first token is asked for here, so that a worker that the service refuses ends at once; one that is refused
        later makes livekit-agents' attempts, since it may have jobs.
        """
        if (tokens := self._auth_tokens) is None:
            raise RuntimeError("the worker isn't running")
        url = await tokens.url()
        _livekit_internals.set_url(self, self._auth_url or url)
        _livekit_internals.set_http_session(self, WorkerSession(_livekit_internals.http_session(self), tokens))
        _livekit_internals.set_placeholders(self)
        await super()._connection_task()

    async def simulate_job(self, room: str, **options: Any) -> None:
        """As in livekit-agents, with a token or as a fake job: a token for any room can't be made here."""
        if not options.get("fake_job") and not options.get("token"):
            raise ConfigError("a simulated job needs a token for its room: get one from livekit-auth and pass token")
        if options.get("token") and self._auth_url:
            _livekit_internals.set_url(self, self._auth_url)
        await super().simulate_job(room, **options)

    async def _reload_jobs(self, jobs: list[RunningJobInfo]) -> None:
        """Development only: extending the tokens of jobs that were running before a code change needs the secret."""
        _log.warning("%d jobs end with this reload: they can't be taken over without a secret", len(jobs))


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
