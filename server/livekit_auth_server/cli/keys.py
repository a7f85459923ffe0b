"""`livekit-auth-server keys …`: add, promote, retire, list and check the keys of a key file.

No secret is ever an argument or printed. An extra argument, a path that doesn't exist or an unknown id may be a secret
in the wrong place, and isn't repeated.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livekit_auth_server.cli.terminal import REFUSED, App, Json, Strict, end_with, err, out, print_json
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_private
from livekit_auth_server.process.operating_system import MISUSE

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

    from livekit_auth_server.keys.lifecycle import Change, Listed

app = App(help="Rotate the keys of a key file, in one step each.", no_args_is_help=True)

_UNPRINTED = {"allow_extra_args": True}  # so that extra ones are refused without being repeated

File = Annotated[Path, typer.Argument(help="The key file.")]
Key = Annotated[str, typer.Argument(help="The key's id.")]
Config = Annotated[
    Path | None, typer.Option(help="The server's settings file: then no other project may have the key ids.")
]


@app.command(
    context_settings=_UNPRINTED,
    examples=("livekit-auth-server keys add keys.yaml --config server.yaml --export livekit-keys.yaml",),
)
def add(
    context: typer.Context,
    file: File,
    key: Annotated[str | None, typer.Argument(help="The key's id. Default: a new one.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Generate a secret, and also write it to this new file in LiveKit's form.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help='Read the secret from this file ("-" for stdin) instead of generating one.')
    ] = None,
    active: Annotated[
        bool, typer.Option("--active", help="Sign with it at once; active keys become verify-only.")
    ] = False,
    not_before: Annotated[str | None, typer.Option(help="When it becomes valid: 2027-01-01T00:00:00Z.")] = None,
    not_after: Annotated[str | None, typer.Option(help="When it ends.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a key, verify-only at first: LiveKit and every server should know it before it signs."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    if not os.path.exists(file):  # noqa: PTH110 - raises nothing
        raise ConfigError(file, "there is no such file; create an empty one first: (umask 077; echo 'keys: []' > FILE)")
    if (export is None) == (secret_file is None):
        raise typer.BadParameter("give either --export, to generate a secret, or --secret-file, to use yours")
    new = lifecycle.NewKey(
        id=key or lifecycle.new_id(),
        secret=_read_secret(secret_file) if secret_file is not None else None,
        export=export,
        active=active,
        not_before=_time(not_before, "--not-before"),
        not_after=_time(not_after, "--not-after"),
    )
    with _refusals(as_json=as_json):
        change = lifecycle.add(file, new, _now(), _taken(config, file))
    _show(change, file, "added", as_json=as_json)


@app.command(
    context_settings=_UNPRINTED,
    examples=(
        "livekit-auth-server keys promote keys.yaml APInew",
        "livekit-auth-server keys promote keys.yaml APInew --revoke APIleaked",
    ),
)
def promote(
    context: typer.Context,
    file: File,
    key: Key,
    revoke: Annotated[
        list[str] | None, typer.Option(help="A key that leaked: revoked in the same step; repeatable.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Sign with this key from now on; active keys become verify-only."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    with _refusals(as_json=as_json):
        change = lifecycle.promote(file, key, _now(), revoke or [], _taken(config, file))
    _show(change, file, "promoted", as_json=as_json)


@app.command(
    context_settings=_UNPRINTED,
    examples=(
        "livekit-auth-server keys retire keys.yaml APIold",
        "livekit-auth-server keys retire keys.yaml APIold --remove",
    ),
)
def retire(
    context: typer.Context,
    file: File,
    key: Key,
    remove: Annotated[bool, typer.Option("--remove", help="Remove a key that is already revoked.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Revoke a verify-only key: tokens that it signed are refused from now on. Then --remove it."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    with _refusals(as_json=as_json):
        change = lifecycle.retire(file, key, _now(), remove=remove, taken=_taken(config, file))
    _show(change, file, "removed" if remove else "revoked", as_json=as_json)


@app.command(
    context_settings=_UNPRINTED,
    examples=("livekit-auth-server keys convert keys.yaml",),
)
def convert(context: typer.Context, file: File, config: Config = None, as_json: Json = False) -> None:
    """Give states to a file of LiveKit's `key: secret` lines. LiveKit itself can't read the file afterwards."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    with _refusals(as_json=as_json):
        change = lifecycle.convert(file, _now(), _taken(config, file))
    _show(change, file, "converted", as_json=as_json)


@app.command("list", context_settings=_UNPRINTED, examples=("livekit-auth-server keys list keys.yaml",))
def list_(context: typer.Context, file: File, as_json: Json = False) -> None:
    """Show the keys: id, state, times, and what each does now."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    keys = lifecycle.listed(file, _now())
    if as_json:
        print_json({"keys": [asdict(key) for key in keys]})
    else:
        _table(keys)


@app.command(
    context_settings=_UNPRINTED,
    examples=("livekit-auth-server keys check keys.yaml --days 14 --strict",),
)
def check(
    context: typer.Context,
    file: File,
    days: Annotated[int, typer.Option(min=0, help="Warn of a key that ends within this many days.")] = 30,
    strict: Strict = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check whether a key file loads, and warn of keys that are weak or end soon."""
    from livekit_auth_server.keys import lifecycle

    _no_more(context)
    report = lifecycle.check(file, _now(), _taken(config, file), days * 24 * 3600)
    if as_json:
        warnings = [{"id": key, "what": what} for key, what in report.warnings]
        print_json({"fine": not warnings, "keys": [asdict(key) for key in report.keys], "warnings": warnings})
    else:
        out.print(f"{file}: loads, {len(report.keys)} keys.", markup=False)
    found = [f"{key}: {what}" if key else what for key, what in report.warnings]
    end_with(found, strict=strict, as_json=as_json)


def _show(change: Change, file: Path, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"done": done if change.changed else "", **asdict(change)})
        return
    what = f"{change.id} {done}" if change.id else done
    out.print(
        f"{file}: {what}." if change.changed else f"{file}: already in that state; nothing changed.", markup=False
    )
    _table(change.keys)
    if change.exported:
        out.print(f"The secret is in {change.exported}. Give it to livekit-server, then delete the file.", markup=False)
    if done == "converted":
        out.print("livekit-server can't read this form: give it a key file of its own.")
    for warning in change.warnings:
        err.print(f"WARNING {warning}", markup=False, style="yellow")


def _table(keys: tuple[Listed, ...]) -> None:
    for key in keys:
        times = [f"from {key.not_before}" if key.not_before else "", f"until {key.not_after}" if key.not_after else ""]
        line = f"  {key.id:<16} {key.state:<12} {key.does:<9} {' '.join(filter(None, times))}"
        out.print(line.rstrip(), markup=False)


@contextmanager
def _refusals(*, as_json: bool) -> Iterator[None]:
    from livekit_auth_server.keys.edited_file import RefusedError

    try:
        yield
    except RefusedError as error:
        if as_json:
            print_json({"changed": False, "refused": str(error)})
        else:
            err.print(f"refused; nothing changed: {error}", markup=False, style="red")
        raise typer.Exit(REFUSED) from None


def _no_more(context: typer.Context) -> None:
    if context.args:
        err.print("too many arguments; a secret is never one: use --secret-file")
        raise typer.Exit(MISUSE)


def _read_secret(path: Path) -> bytes:
    if str(path) != "-":
        try:
            return read_private(path)
        except ConfigError as error:
            raise ConfigError("--secret-file", error.message.split(";")[0]) from None  # the path may be the secret
    if sys.stdin.isatty():
        return getpass("Secret (it isn't shown): ").encode("utf-8", "surrogateescape")
    return sys.stdin.buffer.read(64 * 1024)


def _time(text: str | None, option: str) -> dt.datetime | None:
    from livekit_auth_server.files.field_types import time_with_zone

    try:
        return None if text is None else time_with_zone(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _now() -> int:
    return int(time.time())


def _taken(config: Path | None, file: Path) -> Mapping[str, str]:
    """The key ids of the settings' other projects, and where each one is."""
    if config is None:
        return {}
    from livekit_auth_server.transport.tls import pin_tls13

    pin_tls13()
    from livekit_auth_server.config.settings import load_settings
    from livekit_auth_server.reload.load import load_keys

    settings = load_settings(config)
    named = {name: settings.at(one.keys.file) for name, one in settings.projects.items() if one.keys.file}
    own = {name for name, path in named.items() if _same(path, file)}
    if not own:
        raise ConfigError(config, f"no project there has its keys in {file}; check the paths")
    projects: dict[str, Any] = dict(load_keys(settings).projects)
    others = {name: project for name, project in projects.items() if name not in own}
    return {key.id: f'"{name}" ({key.place})' for name, project in others.items() for key in project.keys}


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
