"""How results and errors are shown: JSON on stdout, or text for people on stderr beside the bare result on stdout."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from livekit_auth._errors import AuthError, ConfigError, Denied, RateLimited, Unauthenticated, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFUSED = 1
MISUSED = 2
NO_ANSWER = 3
"""Unreachable, too late, no TLS agreement, or a fault of the server: it gave no decision."""

_REFUSALS = frozenset(
    {"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "INVALID_ARGUMENT"}
)

_HINTS: list[tuple[type[AuthError], str]] = [
    (Denied, "`livekit-auth whoami` shows what this caller may do."),
    (VerificationFailed, ""),
    (Unauthenticated, "Check the client certificate: its SPIFFE id, its CA and its validity."),
]


_NO_ERROR: dict[str, object] = {
    "code": "",
    "reason": "",
    "message": "",
    "decision_id": "",
    "metadata": {},
    "violations": [],
    "retry_after": None,
}

_NOTHING: tuple[object, ...] = (None, "", [], (), {})


@contextmanager
def errors_shown(*, as_json: bool) -> Iterator[None]:
    """Turns the errors that a caller must expect into output and an exit code; others pass."""
    try:
        yield
    except AuthError as error:
        show_error(error_fields(error), hint(error), as_json=as_json)
        raise typer.Exit(REFUSED if error.code in _REFUSALS else NO_ANSWER) from None
    except (ConfigError, typer.BadParameter) as error:
        message = error.message if isinstance(error, typer.BadParameter) else str(error)
        if not as_json and isinstance(error, typer.BadParameter):
            raise  # typer shows it with the command's usage
        show_error({**_NO_ERROR, "code": "MISUSE", "message": message}, "", as_json=as_json)
        raise typer.Exit(MISUSED) from None


def error_fields(error: AuthError) -> dict[str, object]:
    """An error as JSON has it."""
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "decision_id": error.decision_id,
        "metadata": dict(error.metadata),
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
        "retry_after": error.retry_after,
    }


def hint(error: AuthError) -> str:
    """What to do next, where there is something to do."""
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return f"Try again in {error.retry_after.total_seconds():g} s."
    if error.reason == "CERTIFICATE_REVOKED":
        return "Ask the operators of the server: its deny-list or a CRL names this workload or its certificate."
    return next((text for kind, text in _HINTS if isinstance(error, kind)), "")


def show_error(fields: Mapping[str, object], hint: str, *, as_json: bool) -> None:
    """Prints an error."""
    if as_json:
        print_json({"error": fields})
        return
    console = _console()
    # The decision's id has a line of its own.
    metadata = {key: value for key, value in cast("dict[str, str]", fields["metadata"]).items() if key != "decision_id"}
    fields = {**fields, "metadata": metadata}
    console.print(f"error: {printable(str(fields['message']))}", style="bold red", markup=False)
    for name in ("code", "reason", "decision_id", "metadata", "violations"):
        if fields[name]:
            console.print(f"  {name}: {_text(fields[name])}", markup=False)
    if hint:
        console.print(hint, markup=False)


def show(title: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """Prints a result: as JSON, or as a table on stdout."""
    if as_json:
        print_json(fields)
    else:
        _console(stderr=False).print(_table(title, fields))


def show_token(token: str, title: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """Prints a token: within the JSON, or alone on stdout with the rest beside it on stderr."""
    if as_json:
        print_json({"token": token, **fields})
        return
    _console().print(_table(title, fields))
    if token:
        typer.echo(token)


def print_json(fields: Mapping[str, object]) -> None:
    """Prints one JSON object to stdout: times as RFC 3339, durations in seconds, messages by their field names."""
    typer.echo(json.dumps(fields, default=_plain, indent=2 if sys.stdout.isatty() else None))


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _console(*, stderr: bool = True) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _table(title: str, fields: Mapping[str, object]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in _NOTHING:
            table.add_row(name, Text(_text(value)))
    return table


def _text(value: object) -> str:
    """A value for people, safe to print: the parts of a list beside each other, records below each other."""
    match value:
        case timedelta():
            return f"{value.total_seconds():g} s"
        case datetime() | bytes():
            return str(_plain(value))
        case Message():
            return printable(json.dumps(_plain(value), ensure_ascii=False))
        case dict():
            return "; ".join(f"{_text(key)}: {_text(part)}" for key, part in value.items() if part not in _NOTHING)
        case list() | tuple():
            records = any(isinstance(part, dict) for part in value)
            return ("\n" if records else ", ").join(_text(part) for part in value)
        case _:
            return printable(str(value))


def _plain(value: object) -> object:
    """What JSON has no form for."""
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Message():
            return json_format.MessageToDict(value, preserving_proto_field_name=True)
        case bytes():
            return value.hex()
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")
