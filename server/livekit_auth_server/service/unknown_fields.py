"""Where a request has a field that this server doesn't know: a walk over its bytes, since the parser doesn't say.

Guarantees: at most `MAX_FIELDS` fields are looked at, whatever the request; no value of it is in the answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

Kind = Any  # a Descriptor, and
Field = Any  # a FieldDescriptor: their types differ between protobuf's implementations

MAX_FIELDS = 1024  # 1 to 3 ms of work; more than clients send, unless in lists and maps

# https://protobuf.dev/programming-guides/encoding/#structure
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH_DELIMITED,
}


class UnknownField(NamedTuple):
    """The path of the message that holds it, empty for the request itself, and its number in that message."""

    path: str
    number: int


@dataclass(slots=True)
class _Message:
    """A message that the walk is in. `end` is where its bytes end, `seen` counts its repeated messages."""

    kind: Kind
    end: int
    path: str
    seen: Counter[int] = field(default_factory=Counter)

    def within(self, field: Field, end: int) -> _Message:
        """The message in this field. Entries of a map are numbered too: their keys are values."""
        name = field.name
        if field.is_repeated:
            name = f"{name}[{self.seen[field.number]}]"
            self.seen[field.number] += 1
        return _Message(field.message_type, end, f"{self.path}.{name}" if self.path else name)


def first_unknown(kind: Kind, data: bytes) -> UnknownField | None:
    """The first in the order of the bytes, which must parse as the message; None if it isn't among the first fields.

    A known number with bytes of another type is an unknown field, as it is for the parser.
    """
    inside, at = [_Message(kind, len(data), "")], 0
    for _ in range(MAX_FIELDS):
        while inside and at >= inside[-1].end:
            inside.pop()
        if not inside:
            return None
        message = inside[-1]
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        field = message.kind.fields_by_number.get(number)
        if field is None or not _fits(field, wire_type):
            return UnknownField(message.path, number)
        if wire_type == _VARINT:
            _, at = _varint(data, at)
        elif wire_type != _LENGTH_DELIMITED:
            at += _SIZES[wire_type]
        else:
            size, at = _varint(data, at)
            if field.message_type is not None:
                inside.append(message.within(field, at + size))
            else:
                at += size
    return None


def _fits(field: Field, wire_type: int) -> bool:
    """Whether a field's value can have this type: its own, or of several numbers that of a packed list."""
    own = _WIRE_TYPES.get(field.type, _VARINT)
    return wire_type == own or (field.is_repeated and wire_type == _LENGTH_DELIMITED)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place after it."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1
