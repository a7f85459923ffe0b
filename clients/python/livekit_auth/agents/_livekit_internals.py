"""All names of livekit-agents that are private or that this package replaces, and the behaviour it relies on.

livekit-agents 1.7 and 1.8 sign the worker's registration in `AgentServer._connection_task`, for each connection, and
open it with `_http_session.ws_connect`. In `run` they export url, key and secret to the environment if these are set.
So these aren't set while `run` starts the processes that inherit the environment: `run` is told not to register, and
its "worker_started" event opens the connection in the same way as `run` would have.

Two of their modules make the tokens of LiveKit Inference and of recording, with the key of the environment, using the
`api` that they import. That `api` is replaced by one that differs only in its AccessToken.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from livekit.agents import AgentServer, inference
from livekit.agents.version import __version__

from livekit_auth._messages.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import aiohttp
    from livekit import api
    from livekit.agents.job import JobContext

METHODS = ("_connection_task", "_reload_jobs")
ATTRIBUTES = ("_ws_url", "_api_key", "_api_secret")
"""Set by the constructor of AgentServer."""
RUN_ATTRIBUTES = ("_http_session", "_conn_task", "_close_future")
"""Set by `run`, before it emits "worker_started"."""

_JOB, _TRACES, _INFERENCE = (f"livekit.agents.{name}" for name in ("job", "telemetry.traces", "inference._utils"))
REPLACED = (
    (_JOB, "_observability_url"),
    (_JOB, "_upload_session_report"),
    (_TRACES, "api"),
    (_TRACES, "_AuthRefreshingSession"),
    (_INFERENCE, "api"),
)
"""The names that are replaced, by module."""
MODELS = (
    "LLM",
    "STT",
    "TTS",
    "TurnDetector",
    "AdaptiveInterruptionDetector",
    "AvatarSession",
    "DecisionModel",
)
"""Classes of livekit.agents.inference that take a key and a secret. The last one is new in 1.8."""
CREDENTIALS = tuple(f"livekit.agents.inference.{name}" for name in ("_utils", "realtime.openai", "realtime.gpt_live"))
"""Where 1.8 finds key and secret with `resolve_credentials`. The modules of realtime models are slow to import, and
import the function from the first module, so it is replaced in them only if they are already imported."""

PLACEHOLDER_KEY = "held-by-livekit-auth"
"""Passed where livekit-agents requires an API key. No LiveKit server has a key with this name."""

_COMMAND = "worker_main_task_cli"
"""The task in which the command line (`start`, `dev`) runs a worker. It logs errors of `run` and exits with 0."""


def check(server: AgentServer) -> None:
    """Raises ConfigError if this version of livekit-agents lacks a required name."""
    missing = [name for name in METHODS if not callable(getattr(AgentServer, name, None))]
    missing += [name for name in ATTRIBUTES if name not in vars(server)]
    _refuse([f"AgentServer.{name}" for name in missing])
    _refuse([f"{module}.{name}" for module, name in REPLACED if not hasattr(import_module(module), name)])


def check_running(server: AgentServer) -> None:
    """Checks the names that exist from "worker_started" on. Raises ConfigError."""
    _refuse([f"AgentServer.{name}" for name in RUN_ATTRIBUTES if name not in vars(server)])


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ConfigError(
            f"livekit-agents {__version__} has no {', '.join(missing)}: "
            "livekit-auth works with 1.7 and 1.8; install one of these, or a newer livekit-auth"
        )


def take_url(server: AgentServer) -> str:
    """Removes url, key and secret from a server, so that `run` exports none of them. Returns the url."""
    url = server._ws_url  # noqa: SLF001
    server._ws_url = server._api_key = server._api_secret = ""  # noqa: SLF001
    return url


def set_url(server: AgentServer, url: str) -> None:
    """Sets where the worker connects to, and its jobs if LiveKit gives no other URL."""
    server._ws_url = url  # noqa: SLF001


def set_placeholders(server: AgentServer) -> None:
    """Lets the connecting code sign a token that isn't used. The secret is new, random and known to no server."""
    server._api_key, server._api_secret = PLACEHOLDER_KEY, secrets.token_urlsafe(32)  # noqa: SLF001


def http_session(server: AgentServer) -> aiohttp.ClientSession:
    """The session that opens the worker's connection."""
    session = server._http_session  # noqa: SLF001
    if session is None:
        raise ConfigError(f"livekit-agents {__version__} opens no HTTP session before its connection")
    return session


def set_http_session(server: AgentServer, session: object) -> None:
    """Replaces the session. Only its `ws_connect` and `close` are called."""
    server._http_session = cast("aiohttp.ClientSession", session)  # noqa: SLF001


def connect(server: AgentServer) -> None:
    """Starts the connection as `run` does to register: if it fails permanently, `run` raises its error."""
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
    """Sets the cached property `ctx.api` before livekit-agents fills it from the environment."""
    vars(ctx)["api"] = api


def under_the_command_line() -> bool:
    """Whether the command line of livekit-agents called `run`. It would turn an error into exit code 0."""
    task = asyncio.current_task()
    return task is not None and task.get_name() == _COMMAND


def is_connect(*, devmode: bool, unregistered: bool) -> bool:
    """Whether the command `connect` called `run`. It creates a job with the API key."""
    return devmode and unregistered and sys.argv[1:2] == ["connect"]


def refuse_inference(why: str) -> None:
    """Makes the models of LiveKit Inference raise ConfigError with `why` where they would miss the key."""

    def explained(own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - livekit-agents' options
            try:
                return own(*arguments, **options)
            except ValueError as error:
                if "api_key is required" in str(error) or "LIVEKIT_API_KEY" in str(error):
                    raise ConfigError(why) from None
                raise

        return call

    _replace_in_models(constructor=explained, credentials=explained)


def sign_inference_with(access_token: Callable[..., Any]) -> None:
    """Makes LiveKit Inference take its tokens from `access_token`, without a key from the user."""

    def keyed(construct: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(construct)
        def init(self: object, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            options.setdefault("api_key", PLACEHOLDER_KEY)
            options.setdefault("api_secret", PLACEHOLDER_KEY)
            construct(self, *arguments, **options)

        return init

    def found(resolve: Callable[..., Any]) -> Callable[..., Any]:
        return lambda key, secret: resolve(key or PLACEHOLDER_KEY, secret or PLACEHOLDER_KEY)

    _replace_in_models(constructor=keyed, credentials=found)
    _replace(import_module(_INFERENCE), "api", lambda api: _ModuleWithAccessToken(api, access_token))


def sign_recording_with(
    access_token: Callable[..., Any],
    *,
    header: Callable[[], Mapping[str, str]],
    session: Callable[[aiohttp.ClientSession], object],
) -> None:
    """Makes recording take its tokens from the server.

    `access_token` makes the token that livekit-agents keeps for hours. Threads send traces, logs and metrics with the
    result of `header`, called each time. The report at the end of a session is sent through `session`, which wraps the
    session of the job.
    """
    traces, job = import_module(_TRACES), import_module(_JOB)
    _replace(job, "_observability_url", lambda own: own)
    _replace(job.JobContext, "init_recording", lambda own: own)
    _replace(traces, "api", lambda api: _ModuleWithAccessToken(api, access_token))
    _replace(traces, "_AuthRefreshingSession", lambda kind: functools.partial(_with_header, kind, header))

    def through(upload: Callable[..., Any]) -> Callable[..., Any]:
        async def uploaded(*, http_session: aiohttp.ClientSession, **options: Any) -> Any:  # noqa: ANN401
            return await upload(http_session=session(http_session), **options)

        return uploaded

    _replace(job, "_upload_session_report", through)


def stop_recording(tell: Callable[[], None]) -> None:
    """Turns recording off. Calls `tell` when a session would have been recorded."""
    job = import_module(_JOB)
    _replace(job, "_observability_url", lambda _: lambda _url: None)
    place = job._observability_url.replaced  # noqa: SLF001

    def told(start: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(start)
        def init_recording(self: JobContext, options: Mapping[str, bool]) -> None:
            if any(options.get(what) for what in ("audio", "traces", "logs", "transcript")) and place(job_url(self)):
                tell()
            start(self, options)

        return init_recording

    _replace(job.JobContext, "init_recording", told)


def _replace_in_models(*, constructor: Callable[[Any], Any], credentials: Callable[[Any], Any]) -> None:
    for name in MODELS:
        model = getattr(inference, name, None)
        if model is not None and "api_secret" in inspect.signature(model).parameters:
            _replace(model, "__init__", constructor)
    for name in CREDENTIALS:
        module = sys.modules.get(name)
        if hasattr(module, "resolve_credentials"):
            _replace(module, "resolve_credentials", credentials)


def _replace(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a name by `make` of the original value, even if it was replaced before."""
    present = getattr(owner, name)
    own = getattr(present, "replaced", present)
    new = make(own)
    new.replaced = own
    setattr(owner, name, new)


def _with_header(
    session: Callable[[Callable[[], Mapping[str, str]]], object], header: Callable[[], Mapping[str, str]], _: object
) -> object:
    return session(header)


class _ModuleWithAccessToken:
    """A module with a different AccessToken."""

    def __init__(self, module: object, access_token: Callable[..., Any]) -> None:
        self._module = module
        self.AccessToken = access_token

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._module, name)
