"""Every name of livekit-agents that is private or replaced by this package, and what is relied on.

livekit-agents 1.7 and 1.8 sign the worker's own registration in `AgentServer._connection_task`, at every connection,
and open it with `_http_session.ws_connect`. They export url, key and secret to the environment in `run` where these are
set. So they aren't set while `run` starts the processes that inherit the environment: `run` is told not to register,
and the connection is made from its "worker_started" event, as `run` would have made it.

They make the tokens of LiveKit Inference and of recording in two modules, from the `api` that these import, with the
key of the environment. There `api` is replaced by one whose AccessToken is another; for the rest it is the same.
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
"""Set by AgentServer's constructor."""
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
"""Names of modules that are replaced."""
MODELS = (
    "LLM",
    "STT",
    "TTS",
    "TurnDetector",
    "AdaptiveInterruptionDetector",
    "AvatarSession",
    "DecisionModel",
)
"""Classes of livekit.agents.inference that take a key and a secret; the last one came with 1.8."""
CREDENTIALS = tuple(f"livekit.agents.inference.{name}" for name in ("_utils", "realtime.openai", "realtime.gpt_live"))
"""Where 1.8 looks for key and secret with `resolve_credentials`. The modules of realtime models are slow to import:
they take the function of the first when they are, and are looked at here only if they were imported already."""

PLACEHOLDER_KEY = "held-by-livekit-auth"
"""Stands where livekit-agents wants an API key. No LiveKit server has a key of this name."""

_COMMAND = "worker_main_task_cli"
"""The task in which the command line (`start`, `dev`) runs a worker. It logs an error of `run` and ends with 0."""


def check(server: AgentServer) -> None:
    """Raises ConfigError when this version of livekit-agents lacks a name that is relied on."""
    missing = [name for name in METHODS if not callable(getattr(AgentServer, name, None))]
    missing += [name for name in ATTRIBUTES if name not in vars(server)]
    _refuse([f"AgentServer.{name}" for name in missing])
    _refuse([f"{module}.{name}" for module, name in REPLACED if not hasattr(import_module(module), name)])


def check_running(server: AgentServer) -> None:
    """The same for the names that exist from "worker_started" on."""
    _refuse([f"AgentServer.{name}" for name in RUN_ATTRIBUTES if name not in vars(server)])


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ConfigError(
            f"livekit-agents {__version__} has no {', '.join(missing)}: "
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


def under_the_command_line() -> bool:
    """Whether `run` was called by livekit-agents' own command line, which would turn an error into success."""
    task = asyncio.current_task()
    return task is not None and task.get_name() == _COMMAND


def is_connect(*, devmode: bool, unregistered: bool) -> bool:
    """Whether `run` was called by the command `connect`, which makes up a job with the API key once it runs."""
    return devmode and unregistered and sys.argv[1:2] == ["connect"]


def refuse_inference(why: str) -> None:
    """Has the models of LiveKit Inference say why they have no key, in a ConfigError, where they miss it."""

    def explained(own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - livekit-agents' own
            try:
                return own(*arguments, **options)
            except ValueError as error:
                if "api_key is required" in str(error) or "LIVEKIT_API_KEY" in str(error):
                    raise ConfigError(why) from None
                raise

        return call

    _replace_in_models(constructor=explained, credentials=explained)


def sign_inference_with(access_token: Callable[..., Any]) -> None:
    """Has LiveKit Inference take its tokens from `access_token`, with a key that nobody has to name."""

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
    _replace(import_module(_INFERENCE), "api", lambda api: _Instead(api, access_token))


def sign_recording_with(
    access_token: Callable[..., Any],
    *,
    header: Callable[[], Mapping[str, str]],
    session: Callable[[aiohttp.ClientSession], object],
) -> None:
    """Has recording take its tokens elsewhere.

    `access_token` makes what livekit-agents keeps for hours. Traces, logs and metrics are sent by threads with `header`
    instead, asked for each time; the report at a session's end goes through `session`, made from the job's own.
    """
    traces, job = import_module(_TRACES), import_module(_JOB)
    _replace(job, "_observability_url", lambda own: own)
    _replace(job.JobContext, "init_recording", lambda own: own)
    _replace(traces, "api", lambda api: _Instead(api, access_token))
    _replace(traces, "_AuthRefreshingSession", lambda kind: functools.partial(_with_header, kind, header))

    def through(upload: Callable[..., Any]) -> Callable[..., Any]:
        async def uploaded(*, http_session: aiohttp.ClientSession, **options: Any) -> Any:  # noqa: ANN401
            return await upload(http_session=session(http_session), **options)

        return uploaded

    _replace(job, "_upload_session_report", through)


def stop_recording(tell: Callable[[], None]) -> None:
    """Has jobs find no place to record to. `tell` is called when a session would have been recorded."""
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
    """Replaces a name by what `make` makes of livekit-agents' own, even where it was replaced before."""
    present = getattr(owner, name)
    own = getattr(present, "replaced", present)
    new = make(own)
    new.replaced = own
    setattr(owner, name, new)


def _with_header(
    session: Callable[[Callable[[], Mapping[str, str]]], object], header: Callable[[], Mapping[str, str]], _: object
) -> object:
    return session(header)


class _Instead:
    """A module with another AccessToken."""

    def __init__(self, module: object, access_token: Callable[..., Any]) -> None:
        self._module = module
        self.AccessToken = access_token

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._module, name)
