"""`livekit-auth-server dev …`: a throwaway deployment, and more callers for it."""

from __future__ import annotations

import shlex
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated

import typer

from livekit_auth_server.cli.terminal import App, Json, out, print_json, shown_examples
from livekit_auth_server.files.errors import ConfigError

app = App(
    help="Write a throwaway PKI, keys, policy and settings, and say what to run next.",
    epilog=shown_examples(
        "livekit-auth-server dev --dir ./dev", "livekit-auth-server dev add-caller billing --dir ./dev"
    ),
    invoke_without_command=True,
)


@app.callback()
def dev(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Option("--dir", help="A new or empty folder; required.")] = None,
    address: Annotated[str, typer.Option(help="Where the server will listen, HOST:PORT.")] = "127.0.0.1:7443",
    livekit_url: Annotated[str, typer.Option(help="The LiveKit server that tokens are for.")] = "ws://127.0.0.1:7880",
    as_json: Json = False,
) -> None:
    """Write a throwaway PKI, keys, policy and settings, and say what to run next."""
    from livekit_auth_server.cli import devkit

    context.obj = directory
    if context.invoked_subcommand is not None:
        return
    if directory is None:
        raise typer.BadParameter("name a new or empty folder", param_hint="--dir")
    try:
        devkit.write(directory, address, livekit_url)
    except OSError as error:
        raise ConfigError(directory, str(error.strerror or error)) from None
    files = sorted(path.name for path in directory.iterdir())
    environment = {
        "LIVEKIT_AUTH_ADDRESS": address,
        "LIVEKIT_AUTH_CA": str(directory / "ca.pem"),
        **_of(directory, "web"),
    }
    commands = [
        f"livekit-auth-server serve --config {shlex.quote(str(directory / 'server.yaml'))}",
        *_exports(environment),
        "livekit-auth whoami",
        "livekit-auth token --role guest --room consult-1 --identity user-1 --json",
    ]
    if as_json:
        print_json({"directory": str(directory), "files": files, "environment": environment, "commands": commands})
        return
    about = "to try things out. Anyone who has ca.key can be any caller: keep it here."
    out.print(f"Wrote {len(files)} files to {directory}, {about}\n", markup=False)
    out.print("In one terminal:")
    out.print(f"  {commands[0]}", markup=False)
    out.print("In another:")
    for command in commands[1:]:
        out.print(f"  {command}", markup=False)


@app.command(examples=("livekit-auth-server dev add-caller billing --dir ./dev",))
def add_caller(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The caller's name: small letters, digits and hyphens.")],
    directory: Annotated[Path | None, typer.Option("--dir", help="The folder that `dev` wrote; required.")] = None,
    as_json: Json = False,
) -> None:
    """Issue a certificate to one more caller, and add the caller to the policy. A running server takes both at once."""
    from livekit_auth_server.cli import devkit

    folder = directory or context.obj
    if folder is None:
        raise typer.BadParameter("name the folder that `dev` wrote", param_hint="--dir")
    files, entry = devkit.add_caller(folder, name)
    caller, environment = f"spiffe://{devkit.TRUST_DOMAIN}/{name}", _of(folder, name)
    if as_json:
        names = [path.name for path in files]
        print_json({"caller": caller, "files": names, "policy_entry": entry, "environment": environment})
        return
    out.print(f"Issued {files[0]} and its key to {caller}.", markup=False)
    if entry:
        out.print(f"Added to {folder / 'policy.yaml'}, where you change what it may do:\n{entry}", markup=False)
    else:
        out.print(f"{folder / 'policy.yaml'} lists this caller already.", markup=False)
    out.print("To call as it:")
    for command in _exports(environment):
        out.print(f"  {command}", markup=False)


def _of(directory: Path, name: str) -> dict[str, str]:
    """What a client's environment says of its certificate."""
    return {
        "LIVEKIT_AUTH_CERT": str(directory / f"{name}.pem"),
        "LIVEKIT_AUTH_KEY": str(directory / f"{name}.key"),
    }


def _exports(environment: dict[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
