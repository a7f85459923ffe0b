"""The command `agent-proxy`."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import typer

from livekit_auth._async.client import AuthClient
from livekit_auth._cli import output
from livekit_auth._cli.options import Address, Ca, Cert, Key, Project, Timeout
from livekit_auth._connection.config import DEFAULT_TIMEOUT
from livekit_auth._messages.errors import ConfigError
from livekit_auth.extras import how_to_install

_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_.]*/[A-Za-z][A-Za-z0-9_]*")


def agent_proxy(  # noqa: PLR0913 - the command's options
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The worker's command line, after --.")],
    *,
    role: Annotated[str, typer.Option(metavar="NAME", help="The role that registers the worker.")] = "agent-worker",
    api_role: Annotated[str | None, typer.Option(metavar="NAME", help="The role for its LiveKit API calls.")] = None,
    allow_api: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="An API call to allow, such as livekit.RoomService/ListParticipants; repeatable.",
        ),
    ] = None,
    allow_simulation: Annotated[
        bool, typer.Option("--allow-simulation", help="Allow it to simulate jobs for any room.")
    ] = False,
    credentials_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write url, key and secret to FILE instead of the worker's environment."),
    ] = None,
    project: Project = "",
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Run an agent worker of any language with a made-up API key. Exits with the worker's exit code."""
    with output.errors_shown(as_json=False):
        try:
            from livekit_auth.agent_proxy._proxy import Rules  # noqa: PLC0415 - only this command needs the extra
            from livekit_auth.agent_proxy._run import run  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("livekit_auth"):
                raise
            message = f"agent-proxy needs packages that aren't installed: {how_to_install('cli', 'livekit')}"
            raise ConfigError(message) from None
        for method in allow_api or []:
            if not _METHOD.fullmatch(method):
                message = f"{method!r} isn't a method such as livekit.RoomService/ListParticipants"
                raise typer.BadParameter(message, param_hint="--allow-api")
        rules = Rules(
            role=role,
            project=project,
            api_role=api_role,
            allowed_api=frozenset(allow_api or []),
            simulation=allow_simulation,
        )

        async def proxied() -> int:
            client = AuthClient(address, ca=ca, cert=cert, key=key, timeout=timeout)
            return await run(client, rules, command, credentials_file)

        code = asyncio.run(proxied())
    raise typer.Exit(code)
