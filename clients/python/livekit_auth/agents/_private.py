"""Every name of livekit-agents that is private and touched by this package, and what is relied on.

livekit-agents 1.7 and 1.8 sign the worker's own registration in `AgentServer._connection_task`, at every connection,
and open it with `_http_session.ws_connect`. They export url, key and secret to the environment in `run` where these are
set. So they aren't set while `run` starts the processes that inherit the environment: `run` is told not to register,
and the connection is made from its "worker_started" event, as `run` would have made it.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, cast

from livekit.agents import AgentServer
from livekit.agents.version import __version__

from livekit_auth._errors import ConfigError

if TYPE_CHECKING:
    import aiohttp
    from livekit import api
    from livekit.agents.job import JobContext

METHODS = ("_connection_task", "_reload_jobs")
ATTRIBUTES = ("_ws_url", "_api_key", "_api_secret")
"""Set by AgentServer's constructor."""
RUN_ATTRIBUTES = ("_http_session", "_conn_task", "_close_future")
"""Set by `run`, before it emits "worker_started"."""

PLACEHOLDER_KEY = "held-by-livekit-auth"
"""Stands where the worker's code wants an API key. No LiveKit server has a key of this name."""


def check(server: AgentServer) -> None:
    """Raises ConfigError when this version of livekit-agents lacks a name that is relied on."""
    missing = [name for name in METHODS if not callable(getattr(AgentServer, name, None))]
    missing += [name for name in ATTRIBUTES if name not in vars(server)]
    _refuse(missing)


def check_running(server: AgentServer) -> None:
    """The same for the names that exist from "worker_started" on."""
    _refuse([name for name in RUN_ATTRIBUTES if name not in vars(server)])


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ConfigError(
            f"livekit-agents {__version__} has no AgentServer.{', '.join(missing)}: "
            "livekit-auth works with 1.7 and 1.8; install one of these, or a newer livekit-auth"
        )


def take_url(server: AgentServer) -> str:
    """Takes url, key and secret away from a server, so that `run` exports none of them. Returns the url."""
    url = server._ws_url  # noqa: SLF001
    server._ws_url = server._api_key = server._api_secret = ""  # noqa: SLF001
    return url


def set_url(server: AgentServer, url: str) -> None:
    """Where the worker connects to, and its jobs if LiveKit names no other place."""
    server._ws_url = url  # noqa: SLF001


def set_placeholders(server: AgentServer) -> None:
    """Lets the connecting code sign a token that nobody uses. The secret is new, random and known to no server."""
    server._api_key, server._api_secret = PLACEHOLDER_KEY, secrets.token_urlsafe(32)  # noqa: SLF001


def http_session(server: AgentServer) -> aiohttp.ClientSession:
    """The session that the worker's connection is opened with."""
    session = server._http_session  # noqa: SLF001
    if session is None:
        raise ConfigError(f"livekit-agents {__version__} opens no HTTP session before its connection")
    return session


def set_http_session(server: AgentServer, session: object) -> None:
    """Replaces it; `ws_connect` and `close` are what is called on it."""
    server._http_session = cast("aiohttp.ClientSession", session)  # noqa: SLF001


def connect(server: AgentServer) -> None:
    """Starts the connection as `run` does to register: when it is given up for good, `run` ends with its error."""
    task = asyncio.create_task(server._connection_task(), name="worker_conn_task")  # noqa: SLF001
    server._conn_task = task  # noqa: SLF001

    def ended(task: asyncio.Task[None]) -> None:
        closing = server._close_future  # noqa: SLF001
        if task.cancelled() or closing is None or closing.done():
            return
        if (error := task.exception()) is not None:
            closing.set_exception(error)

    task.add_done_callback(ended)


def job_url(ctx: JobContext) -> str:
    """The url of the LiveKit server that assigned the job."""
    return ctx._info.url  # noqa: SLF001


def set_api(ctx: JobContext, api: api.LiveKitAPI) -> None:
    """Fills the cached property `ctx.api` before livekit-agents does, from the environment."""
    vars(ctx)["api"] = api
