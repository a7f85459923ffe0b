"""The command line: dev, serve, check, demo, policy, audit, keys.

Exit codes: 0 for done, 1 for refused (also a difference, or a warning with --strict), 2 for wrong options, files or
settings, 130 for an interrupted start. Heavy imports are inside the commands: TLS is pinned before gRPC is imported,
and `--help` is quick.
"""

from __future__ import annotations

import os
import sys

from livekit_auth_server.process import operating_system as process

process.begin(sys.argv[1:])  # before slow imports: a signal during them would end the process

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livekit_auth_server.audit.chained_file import FULL
from livekit_auth_server.cli import audit as audit_cli
from livekit_auth_server.cli import dev as dev_cli
from livekit_auth_server.cli import keys as keys_cli
from livekit_auth_server.cli import policy as policy_cli
from livekit_auth_server.cli.terminal import App, Json, Strict, end_with, err, out, print_json
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.operating_system import MISUSE

if TYPE_CHECKING:
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.supervisor.worker_side import SupervisorLine

app = App(
    name="livekit-auth-server",
    help="Holds LiveKit API secrets and issues tokens by policy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(dev_cli.app, name="dev")
app.add_typer(policy_cli.app, name="policy")
app.add_typer(audit_cli.app, name="audit")
app.add_typer(keys_cli.app, name="keys")

Config = Annotated[Path, typer.Option(help="The settings file.", envvar="LIVEKIT_AUTH_SERVER_CONFIG")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        out.print(f"livekit-auth-server {version('livekit-auth-server')}", markup=False, highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Holds LiveKit API secrets and issues tokens by policy."""


@app.command(
    examples=(
        "livekit-auth-server serve --config server.yaml",
        "livekit-auth-server serve --config server.yaml --workers 4",
    )
)
def serve(
    config: Config,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port; the setting `workers` without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve until SIGTERM, then drain. SIGHUP reloads; SIGUSR2 replaces several workers one by one."""
    import structlog

    from livekit_auth_server.config.settings import load_settings
    from livekit_auth_server.serve import capacity

    settings = load_settings(config)
    warning = capacity.fit(settings)
    capacity.check_threads()
    stream = _log_stream(settings, as_json)
    if warning:
        structlog.get_logger("livekit_auth_server").warning(warning)
    if (count := workers or settings.workers) == 1:
        _serve(settings, stream)
        return
    import asyncio

    from livekit_auth_server.supervisor.run import supervise

    asyncio.run(supervise(settings, count, config, stream, as_json=as_json))


@app.command(hidden=True)
def worker(
    config: Config,
    listen: Annotated[str, typer.Option(help="The address, with the port that all workers share.")],
    number: Annotated[int, typer.Option(help="This worker's number.")],
    line: Annotated[int, typer.Option(help="The descriptor of the line to the supervisor.")],
    as_json: Json = False,
) -> None:
    """One of several workers; `serve` starts them."""
    from livekit_auth_server.serve import capacity
    from livekit_auth_server.supervisor.worker_side import SupervisorLine

    supervisor = SupervisorLine(line, number)
    try:
        capacity.check_threads()
        supervisor.begin()
        from livekit_auth_server.config.settings import load_settings

        settings = load_settings(config).model_copy(update={"listen": listen})
        capacity.fit(settings)
        _serve(settings, _log_stream(settings, as_json, number), supervisor)
    except ConfigError as error:
        supervisor.fail(error)
        raise typer.Exit(MISUSE) from None


def _log_stream(settings: Settings, as_json: bool, number: int | None = None) -> LineStream:
    from livekit_auth_server.cli.start_summary import StartSummary
    from livekit_auth_server.logs import configure as logs
    from livekit_auth_server.logs.nonblocking_stream import LineStream

    stream = LineStream(sys.stderr.fileno())
    on_terminal = [StartSummary(settings)] if number is None else []
    logs.configure("json" if as_json else settings.log.format, settings.log.level, stream, number, on_terminal)
    return stream


def _serve(settings: Settings, stream: LineStream, supervisor: SupervisorLine | None = None) -> None:
    from livekit_auth_server.transport.tls import pin_tls13

    pin_tls13()
    import uvloop

    from livekit_auth_server.serve.wiring import serve as run

    uvloop.run(run(settings, stream, supervisor))


@app.command(examples=("livekit-auth-server check --config server.yaml",))
def check(config: Config, strict: Strict = False, as_json: Json = False) -> None:
    """Load everything as `serve` would, and show a summary. Nothing is served or changed.

    Exits with 0, or with 1 for a warning and --strict, or with 2 for anything that `serve` would refuse.
    """
    from livekit_auth_server.transport.tls import pin_tls13

    pin_tls13()
    from livekit_auth_server.cli.check import lines, summary
    from livekit_auth_server.config.settings import load_settings

    found = summary(load_settings(config))
    if as_json:
        print_json(found)
    else:
        out.print(
            f"{config}: fine." if not found["warnings"] else f"{config}: would serve, with warnings.", markup=False
        )
        for line in lines(found):
            out.print(f"  {line}", markup=False)
    end_with(found["warnings"], strict=strict, as_json=as_json)


@app.command()
def demo(as_json: Json = False) -> None:
    """Run the main job end to end on this machine, in a throwaway folder."""
    from livekit_auth_server.cli.demo import run

    raise typer.Exit(run(as_json=as_json))


def _check_arguments() -> None:
    """Refuses bytes that aren't UTF-8: Python keeps them as lone surrogates, which can't be printed."""
    if any("\udc80" <= char <= "\udcff" for argument in sys.argv for char in argument):
        raise ConfigError("command line", "an argument isn't UTF-8")


def main() -> None:
    """Runs the command line. A mistake in a file is one message and exit code 2."""
    try:
        _check_arguments()
        app()
    except ConfigError as error:
        err.print(f"livekit-auth-server: {error}", markup=False, style="red")
        sys.exit(MISUSE)
    except OSError as error:
        if error.errno not in FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not tried again at exit
        place = error.filename or "the output can't be written"
        err.print(f"livekit-auth-server: {place}: {FULL[error.errno]}", markup=False, style="red")
        sys.exit(MISUSE)


if __name__ == "__main__":
    main()
