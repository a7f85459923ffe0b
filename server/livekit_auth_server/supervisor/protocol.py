"""The messages between a worker and its supervisor: one per line, over one socket.

A worker sends JSON objects: heartbeats from its start to its end, the reason why it can't serve, and its metrics on
request. The supervisor sends orders, one word each. The two can be of different releases during an update, so the
format of these lines must not change.

Guarantees: encoding never fails; decoding returns a message or `Unreadable`, and never raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.readiness import PHASES, Readiness

if TYPE_CHECKING:
    from livekit_auth_server.process.readiness import Phase

HEARTBEAT = 0.5  # seconds between heartbeats
LONGEST = 16 * 1024 * 1024  # bytes of a line


class Order(StrEnum):
    """What a supervisor tells a worker."""

    METRICS = "metrics"  # send them
    RELOAD = "reload"  # read all files again


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker is alive, in this phase and condition."""

    phase: Phase
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker can't serve: which file or setting is bad, where, and why."""

    where: str
    message: str
    line: int | None = None

    @classmethod
    def of(cls, error: ConfigError) -> Failed:
        """The message for this error."""
        return cls(error.where, error.message, error.line)

    def error(self) -> ConfigError:
        """The error that the worker met."""
        return ConfigError(self.where, self.message, self.line)


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The worker's metrics in Prometheus' text format."""

    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no message."""

    why: str


Message = Heartbeat | Failed | MetricsPage


def encode(message: Message) -> bytes:
    """The line of a worker's message."""
    fields: dict[str, object]
    match message:
        case Heartbeat(phase, readiness):
            state = {
                "ready": readiness.ready,
                "reasons": [_text(reason) for reason in readiness.reasons],
                "warnings": [_text(warning) for warning in readiness.warnings],
            }
            fields = {"phase": phase, "state": state}
        case Failed(where, why, line):
            fields = {"failed": {"where": _text(where), "line": line, "message": _text(why)}}
        case MetricsPage(text):
            fields = {"metrics": _text(text)}
    return orjson.dumps(fields) + b"\n"


def decode(line: bytes) -> Message | Unreadable:
    """A worker's message."""
    try:
        fields: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Unreadable("no JSON")
    match fields:
        case {"failed": {"where": str(where), "message": str(why), "line": int() | None as number}}:
            return Failed(where, why, number)
        case {"metrics": str(text)}:
            return MetricsPage(text)
        case {"phase": str(name), "state": {"reasons": list(reasons), "warnings": list(warnings)}}:
            return _heartbeat(name, reasons, warnings)
        case _:
            return Unreadable("not a message of a worker")


def encode_order(order: Order) -> bytes:
    """The line of an order."""
    return order.encode() + b"\n"


def decode_order(line: bytes) -> Order | Unreadable:
    """A supervisor's order."""
    try:
        return Order(line.strip().decode())
    except ValueError:  # UnicodeDecodeError is one
        return Unreadable("not an order")


def _heartbeat(name: str, reasons: list[object], warnings: list[object]) -> Heartbeat | Unreadable:
    phase = next((phase for phase in PHASES if phase == name), None)
    texts = [tuple(text for text in found if isinstance(text, str)) for found in (reasons, warnings)]
    if phase is None or [len(found) for found in texts] != [len(reasons), len(warnings)]:
        return Unreadable("not a heartbeat")
    return Heartbeat(phase, Readiness(*texts))


def _text(text: str) -> str:
    """The text with a question mark for what UTF-8, and so JSON, has no bytes for: lone surrogates."""
    return text.encode("utf-8", "replace").decode()
