"""Filters the messages between the worker and LiveKit.

A worker's message is parsed and serialised again, so LiveKit never reads anything in a message that wasn't checked
here. Unknown kinds of messages are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMessage, WSMsgType
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol.agent import ServerMessage, WorkerMessage

if TYPE_CHECKING:
    from collections.abc import Callable

Frame = bytes | str
NO_STATUS = 1005
MAX_REASON_BYTES = 123


class UnreadableError(Exception):
    """The frame isn't a message of the worker protocol."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The code and reason that a connection is closed with (RFC 6455, 7.4)."""

    code: int = WSCloseCode.GOING_AWAY
    reason: bytes = b""

    @classmethod
    def of(cls, last: WSMessage, *, gone: int) -> Ending:
        """The ending in the last frame; `gone` if the connection broke without a close frame.

        A close frame without a code (1005) is forwarded as a normal closure.
        """
        if last.type is not WSMsgType.CLOSE:
            return cls(gone)
        code = last.data if isinstance(last.data, int) and last.data else WSCloseCode.OK
        if code in {WSCloseCode.ABNORMAL_CLOSURE, NO_STATUS}:  # reserved codes, which can't be sent
            code = gone
        return cls(code, str(last.extra or "").encode()[:MAX_REASON_BYTES])


def from_worker(kind: WSMsgType, data: Frame, *, simulation: bool) -> Frame | None:
    """The frame to forward, or None if it is dropped. Raises UnreadableError.

    SimulateJob gives a worker a job, and so a join token, for any room it names: it is forwarded only if allowed.
    """
    message = WorkerMessage()
    _parse(kind, data, message)
    message.DiscardUnknownFields()
    what = message.WhichOneof("message")
    if what is None or (what == "simulate_job" and not simulation):
        return None
    return _write(kind, message)


def from_livekit(kind: WSMsgType, data: Frame, url: str, unrecorded: Callable[[], None]) -> Frame:
    """The frame to forward. Raises UnreadableError.

    A job without a URL gets that of the project, because the worker would use the proxy's. Recording is turned off and
    `unrecorded` called, because the worker would sign its uploads with the made-up key.
    """
    message = ServerMessage()
    _parse(kind, data, message)
    what = message.WhichOneof("message")
    if what not in {"availability", "assignment"}:
        return data
    job = message.availability.job if what == "availability" else message.assignment.job
    if job.enable_recording:
        job.enable_recording = False
        unrecorded()
    elif what == "availability" or message.assignment.url:
        return data
    if what == "assignment" and not message.assignment.url:
        message.assignment.url = url
    return _write(kind, message)


def _parse(kind: WSMsgType, data: Frame, message: WorkerMessage | ServerMessage) -> None:
    try:
        if kind is WSMsgType.BINARY and isinstance(data, bytes):
            message.ParseFromString(data)
        elif kind is WSMsgType.TEXT and isinstance(data, str):
            json_format.Parse(data, message, ignore_unknown_fields=True, max_recursion_depth=20)
        else:
            raise UnreadableError
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise UnreadableError from None


def _write(kind: WSMsgType, message: WorkerMessage | ServerMessage) -> Frame:
    return message.SerializeToString() if kind is WSMsgType.BINARY else json_format.MessageToJson(message, indent=None)
