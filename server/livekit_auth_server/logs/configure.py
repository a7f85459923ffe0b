"""Logging: structlog, JSON lines on stderr, or readable lines where stderr is a terminal."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, Literal

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from livekit_auth_server.logs.nonblocking_stream import LineStream

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def configure(
    format_: Format = "auto",
    level: Level = "info",
    stream: LineStream | None = None,
    worker: int | None = None,
    on_terminal: Sequence[structlog.typing.Processor] = (),
) -> None:
    """Sets up logging for the process, to `stream` or else to stderr, which may block the code that logs.

    Lines have `worker`, the process's number, if it is one of several. Tracebacks never show local variables, which may
    hold secrets. A terminal is written to directly; `on_terminal` are further processors for it.
    """
    console = sys.stderr.isatty() if format_ == "auto" else format_ == "console"
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        *([_numbered(worker)] if worker is not None else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console and sys.stderr.isatty():
        processors += [*([_without_heads] if level != "debug" else []), *on_terminal]
    if console:
        plain, colors = structlog.dev.plain_traceback, sys.stderr.isatty()
        processors += [_escaped, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
        factory: Any = structlog.PrintLoggerFactory(_Text(stream) if stream and not colors else sys.stderr)  # type: ignore[arg-type]
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
        factory = structlog.BytesLoggerFactory(stream or sys.stderr.buffer)  # type: ignore[arg-type]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def _numbered(worker: int) -> structlog.typing.Processor:
    """Not a context variable: gRPC's callbacks run in contexts of their own."""

    def add(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("worker", worker)
        return event

    return add


def _without_heads(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Heads of the audit trail are for a log that is stored: nobody compares one with a terminal's lines."""
    if event["event"] == "audit head":
        raise structlog.DropEvent
    return event


class _Text:
    """A LineStream that takes text."""

    def __init__(self, stream: LineStream) -> None:
        self._stream = stream
        self.flush = stream.flush

    def write(self, text: str) -> None:
        self._stream.write(text.encode(errors="backslashreplace"))


def _dumps(event: Any, default: Any = None, **_: Any) -> bytes:  # noqa: ANN401 - structlog's signature
    try:
        return orjson.dumps(event, default=default)
    except TypeError:  # numbers over 64 bits, keys that aren't text, lone surrogates: a line must never be lost
        return json.dumps({str(name): repr(value) for name, value in event.items()}).encode("ascii")


def _escaped(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
    """Escapes unprintable characters in texts: terminals act on some, and a line break would forge a line."""
    return {
        name: "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
        if isinstance(value, str) and not value.isprintable()
        else value
        for name, value in event.items()
    }
