"""The command line: dev, serve, check, demo, policy, audit, keys. Exit codes: 0 ok, 1 refused, 2 misuse, 3 unreachable.

Heavy imports stand inside the commands: gRPC must not be imported before TLS is pinned, and `--help` should be quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livekit_auth_server import audit_cli, keys_cli, policy_cli
from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.terminal import MISUSE, Json, Strict, end_with, err, out, print_json

if TYPE_CHECKING:
    from livekit_auth_server.adapters.control import Control
    from livekit_auth_server.adapters.line_stream import LineStream
    from livekit_auth_server.settings import Settings

app = typer.Typer(
    name="livekit-auth-server",
    help="Holds LiveKit API secrets and issues tokens by policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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


@app.command()
def serve(
    config: Config,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port; the setting `workers` without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve until SIGTERM, then drain. SIGHUP reloads; SIGUSR2 replaces several workers one by one."""
    _ignore_early_signals()
    from livekit_auth_server.settings import load_settings

    settings = load_settings(config)
    stream = _log_stream(settings, as_json)
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
    _ignore_early_signals()
    from livekit_auth_server.adapters.control import Control
    from livekit_auth_server.settings import load_settings

    control = Control(line, number)
    try:
        settings = load_settings(config).model_copy(update={"listen": listen})
        _serve(settings, _log_stream(settings, as_json, number), control)
    except ConfigError as error:
        control.fail(error)
        raise typer.Exit(MISUSE) from None


def _ignore_early_signals() -> None:
    """A reload that is asked for while everything is being loaded has nothing to add, and mustn't end the process."""
    import signal

    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _log_stream(settings: Settings, as_json: bool, number: int | None = None) -> LineStream:
    from livekit_auth_server.adapters import logs
    from livekit_auth_server.adapters.line_stream import LineStream

    stream = LineStream(sys.stderr.fileno())
    logs.configure("json" if as_json else settings.log.format, settings.log.level, stream, number)
    return stream


def _serve(settings: Settings, stream: LineStream, control: Control | None = None) -> None:
    from livekit_auth_server.transport.tls import pin_tls13

    pin_tls13()
    import uvloop

    from livekit_auth_server.wiring import serve as run

    uvloop.run(run(settings, stream, control))


@app.command()
def check(config: Config, strict: Strict = False, as_json: Json = False) -> None:
    """Load everything as `serve` would, and say what it is. Nothing is served or changed.

    Exits with 0, warnings or not; with 1 when there are warnings and --strict; with 2 for what `serve` would refuse.
    """
    from livekit_auth_server.transport.tls import pin_tls13

    pin_tls13()
    from livekit_auth_server.check import lines, summary
    from livekit_auth_server.settings import load_settings

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
def dev(
    directory: Annotated[Path, typer.Option("--dir", help="A new or empty folder.")],
    address: Annotated[str, typer.Option(help="Where the server will listen, HOST:PORT.")] = "127.0.0.1:7443",
    livekit_url: Annotated[str, typer.Option(help="The LiveKit server that tokens are for.")] = "ws://127.0.0.1:7880",
    as_json: Json = False,
) -> None:
    """Write a throwaway PKI, keys, policy and settings, and say what to run next."""
    from livekit_auth_server import devkit

    try:
        devkit.write(directory, address, livekit_url)
    except OSError as error:
        raise ConfigError(directory, str(error.strerror or error)) from None
    files = sorted(path.name for path in directory.iterdir())
    environment = {
        "LIVEKIT_AUTH_ADDRESS": address,
        "LIVEKIT_AUTH_CA": str(directory / "ca.pem"),
        "LIVEKIT_AUTH_CERT": str(directory / "web.pem"),
        "LIVEKIT_AUTH_KEY": str(directory / "web.key"),
    }
    commands = [
        f"livekit-auth-server serve --config {directory / 'server.yaml'}",
        *(f"export {name}={value}" for name, value in environment.items()),
        "livekit-auth whoami",
        "livekit-auth token --role guest --room consult-1 --identity user-1 --json",
    ]
    if as_json:
        print_json({"directory": str(directory), "files": files, "environment": environment, "commands": commands})
        return
    out.print(
        f"Wrote {len(files)} files to {directory}. They are for trying things out: the CA's key is thrown away.\n"
    )
    out.print("In one terminal:")
    out.print(f"  {commands[0]}")
    out.print("In another:")
    for command in commands[1:]:
        out.print(f"  {command}")


@app.command()
def demo(as_json: Json = False) -> None:
    """Run the main job end to end on this machine, in a throwaway folder."""
    from livekit_auth_server.demo import run

    raise typer.Exit(run(as_json=as_json))


def _check_arguments() -> None:
    """Python keeps bytes that aren't UTF-8 as lone surrogates, which can't be printed again."""
    if any("\udc80" <= char <= "\udcff" for argument in sys.argv for char in argument):
        raise ConfigError("command line", "an argument isn't UTF-8")


def main() -> None:
    """Runs the command line; a mistake in a file is one message and exit code 2."""
    try:
        _check_arguments()
        app()
    except ConfigError as error:
        err.print(f"livekit-auth-server: {error}", markup=False, style="red")
        sys.exit(MISUSE)


if __name__ == "__main__":
    main()
