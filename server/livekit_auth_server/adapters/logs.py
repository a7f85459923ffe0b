"""Logging: structlog, JSON lines on stderr, or readable lines where stderr is a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import orjson
import structlog

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def configure(format_: Format = "auto", level: Level = "info") -> None:
    """Sets up logging for the process. Tracebacks never show local variables: those may hold secrets."""
    console = sys.stderr.isatty() if format_ == "auto" else format_ == "console"
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        plain = structlog.dev.plain_traceback
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=plain))
        factory: Any = structlog.PrintLoggerFactory(sys.stderr)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def _dumps(event: Any, default: Any = None, **_: Any) -> bytes:  # noqa: ANN401 - structlog's signature
    return orjson.dumps(event, default=default)
