"""Requests from bytes.

Guarantees: the size is checked before anything is parsed; a request with unknown fields is refused and told which
it is; the parser's words stay in the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.unknown_fields import first_unknown
from livekit_auth_server.service.version import VERSION

if TYPE_CHECKING:
    from livekit_auth_server.service.unknown_fields import UnknownField

M = TypeVar("M", bound=Message)

_GROWTH = 40  # how many bytes of memory a byte of messages within messages can become: an empty one takes two
_GROWTH_OF_SCALARS = 4  # the parser's copy, rounded up, and that of the code that reads the field


def growth(message_type: type[Message]) -> int:
    """How many bytes of memory a byte of such a request can become, at most."""
    return _GROWTH if any(field.message_type for field in message_type.DESCRIPTOR.fields) else _GROWTH_OF_SCALARS


def check_size(data: bytes, max_bytes: int) -> None:
    """Raises REQUEST_INVALID for more bytes than a request may have."""
    if len(data) > max_bytes:
        raise Refusal(Reason.REQUEST_INVALID, f"{len(data)} bytes are over this request's limit of {max_bytes}")


def decoded(message_type: type[M], data: bytes, max_bytes: int, path: str = "") -> M:
    """The request, or the part of one at `path`. Raises REQUEST_INVALID, REQUEST_MALFORMED or FIELD_UNKNOWN.

    The size comes first: two bytes of an empty message become a hundred in memory.
    """
    check_size(data, max_bytes)
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise Refusal(Reason.REQUEST_MALFORMED, f"the request isn't a {name}") from None
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise _unknown(first_unknown(message_type.DESCRIPTOR, data), path)
    return message


def _unknown(field: UnknownField | None, path: str) -> Refusal:
    """Says which field it is, unless it comes after more fields than are looked at."""
    metadata, which = {"server_version": VERSION}, "a field of the request"
    if field is not None:
        metadata["field_path"] = ".".join(part for part in (path, field.path) if part)
        metadata["field_number"] = str(field.number)
        which = f"field {field.number} of {metadata['field_path'] or 'the request'}"
    message = f"this server, version {VERSION}, doesn't know {which}; upgrade the server, or don't set the field"
    return Refusal(Reason.FIELD_UNKNOWN, message, metadata)
