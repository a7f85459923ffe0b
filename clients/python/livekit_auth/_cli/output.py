"""Shows results and errors: as JSON on stdout, or as text, with errors on stderr.

Control characters are escaped in all output. Output that can't be written is a separate error with its own exit code.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
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

from livekit_auth._messages.errors import (
    AuthError,
    ConfigError,
    Denied,
    NotConnected,
    RateLimited,
    Unauthenticated,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

    from rich.console import RenderableType

DONE = 0
REFUSED = 1
MISUSED = 2
NO_ANSWER = 3
"""The server made no decision: unreachable, too late, no TLS connection, or an internal error."""
NOT_WRITTEN = 4
"""The command may have succeeded, but its output is lost."""

CANNOT_WRITE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

_REFUSALS = frozenset(
    {
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
    }
)


_NO_ERROR: dict[str, object] = {
    "code": "",
    "reason": "",
    "message": "",
    "decision_id": "",
    "metadata": {},
    "violations": [],
    "retry_after": None,
    "cause": None,
}

_NOTHING: tuple[object, ...] = (None, "", [], (), {})


@contextmanager
def errors_shown(*, as_json: bool) -> Iterator[None]:
    """Turns AuthError and ConfigError into output and an exit code. Other exceptions propagate."""
    try:
        yield
    except AuthError as error:
        show_error(error_fields(error), hint(error), as_json=as_json)
        raise typer.Exit(REFUSED if error.code in _REFUSALS else NO_ANSWER) from None
    except ConfigError as error:
        show_error({**_NO_ERROR, "code": "MISUSE", "message": str(error)}, "", as_json=as_json)
        raise typer.Exit(MISUSED) from None


class NotWrittenError(Exception):
    """Standard output, or standard error, can't be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__("closed pipe" if error.errno in {None, errno.EPIPE} else error.strerror)


def show_misuse(error: typer.BadParameter, *, as_json: bool) -> int:
    """Shows typer's UsageError and returns the exit code."""
    message, context = error.format_message(), error.ctx
    if as_json:
        print_json({"error": {**_NO_ERROR, "code": "MISUSE", "message": message}})
    elif type(error).__name__ == "NoArgsIsHelpError":
        write(f"{message}\n", sys.stderr)
    else:
        usage = f"{context.get_usage()}\n" if context else ""
        hint = f"`{context.command_path} --help` shows the options and examples.\n" if context else ""
        write(f"{usage}error: {printable(message)}\n{hint}", sys.stderr)
    return MISUSED


def show_not_written(error: NotWrittenError) -> int:
    """Reports the error on stderr if possible, and returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # otherwise Python would retry at exit and print its own error
        with contextlib.suppress(OSError, ValueError):
            if stream is sys.stderr:
                stream.write(f"livekit-auth: the output can't be written: {error}\n")
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return NOT_WRITTEN


def write(text: str, stream: TextIO) -> None:
    """Writes text, escaping what the stream's encoding lacks. Raises NotWrittenError."""
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        raise NotWrittenError(error) from error
    except ValueError as error:  # closed
        raise NotWrittenError(BrokenPipeError()) from error


def flush() -> None:
    """Flushes stdout and stderr. Raises NotWrittenError."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            write("", stream)


def error_fields(error: AuthError) -> dict[str, object]:
    """The fields of an error in JSON."""
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "decision_id": error.decision_id,
        "metadata": dict(error.metadata),
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
        "retry_after": error.retry_after,
        "cause": error.cause if isinstance(error, NotConnected) else None,
    }


def hint(error: AuthError) -> str:
    """What to do next; "" if there is nothing to do."""
    match error:
        case RateLimited():
            return f"Retry in {error.retry_after.total_seconds():g} s."
        case Denied() if error.decision_id:
            return f"`livekit-auth why {printable(error.decision_id)}` shows what each policy entry lacked."
        case Denied():
            return "`livekit-auth whoami` shows what this caller may do."
        case Unauthenticated() if error.reason == "CERTIFICATE_REVOKED":
            return "Ask the operators of the server: its deny-list or a CRL lists this workload or its certificate."
        case Unauthenticated():
            return "Check the client certificate: its SPIFFE ID, CA and validity."
        case _:
            return ""


def show_error(fields: Mapping[str, object], hint: str, *, as_json: bool) -> None:
    """Prints an error."""
    if as_json:
        print_json({"error": fields})
        return
    # The decision id has its own line.
    metadata = {key: value for key, value in cast("dict[str, str]", fields["metadata"]).items() if key != "decision_id"}
    fields = {**fields, "metadata": metadata}
    lines = [Text(f"error: {printable(str(fields['message']))}", style="bold red")]
    lines += [
        Text(f"  {name}: {_text(fields[name])}")
        for name in ("code", "reason", "decision_id", "metadata", "violations", "cause")
        if fields[name]
    ]
    _show(sys.stderr, *lines, *([Text(hint)] if hint else []))


def show(title: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """Prints a result on stdout, as JSON or as a table."""
    if as_json:
        print_json(fields)
    else:
        _show(sys.stdout, _table(title, fields))


def show_token(token: str, title: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """Prints a token: within the JSON, or alone on stdout with the other fields on stderr."""
    if as_json:
        print_json({"token": token, **fields})
        return
    _show(sys.stderr, _table(title, fields))
    if token:
        write(f"{token}\n", sys.stdout)


def print_json(fields: Mapping[str, object]) -> None:
    """Prints one JSON object to stdout: times as RFC 3339, durations in seconds, messages by their field names."""
    write(f"{json.dumps(fields, default=_plain, indent=2 if sys.stdout.isatty() else None)}\n", sys.stdout)


def _show(stream: TextIO, *parts: RenderableType) -> None:
    console = Console(file=stream, highlight=False, soft_wrap=True, emoji=False)
    with console.capture() as shown:
        for part in parts:
            console.print(part)
    write(shown.get(), stream)


def _table(title: str, fields: Mapping[str, object]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in _NOTHING:
            table.add_row(name, Text(_text(value)))
    return table


def _text(value: object) -> str:
    """A value as printable text: lists on one line, lists of records on one line per record."""
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
    """Converts a value that JSON can't represent."""
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
