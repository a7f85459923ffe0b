"""Generated messages of the contract, field by field from its descriptors, and LiveKit's with the same values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from livekit_auth.v1.room_config_pb2 import RoomConfig
from support.policies import awkward_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

    Values = Callable[[FieldDescriptor], st.SearchStrategy[Any]]

M = TypeVar("M", bound="Message")


def field_name(field: FieldDescriptor) -> str:
    """A field as service.validation names it: "RoomConfig.tags"."""
    assert field.containing_type is not None
    return f"{field.containing_type.name}.{field.name}"


def fields_of(message: Message) -> list[FieldDescriptor]:
    """The fields of a message's type."""
    return cast("list[FieldDescriptor]", list(message.DESCRIPTOR.fields))


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum that a field is of."""
    assert field.enum_type is not None
    return field.enum_type


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def plain_values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values that keep the contract's rules, for every kind of field that a RoomConfig has."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from(sorted(enum_of(field).values_by_number))
    return {
        FieldDescriptor.TYPE_STRING: awkward_text,
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.TYPE_INT32: st.integers(0, 48),
        FieldDescriptor.TYPE_DOUBLE: st.floats(0, 600),
    }[field.type]


@st.composite
def messages(
    draw: st.DrawFn, cls: type[M], values: Values = plain_values, *, without: frozenset[str] = frozenset()
) -> M:
    """A message with any of its fields set. `without` names fields that stay unset, as `field_name` does."""
    message = cls()
    _fill(draw, message, values, without)
    return message


def _fill(draw: st.DrawFn, message: Message, values: Values, without: frozenset[str]) -> None:
    fields = [field for field in fields_of(message) if field_name(field) not in without]
    if not fields:
        return
    for field in draw(st.lists(st.sampled_from(fields), unique_by=lambda field: field.number, max_size=6)):
        if is_map(field):
            getattr(message, field.name).update(draw(st.dictionaries(awkward_text, awkward_text, max_size=3)))
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated:
            for _ in range(draw(st.integers(1, 2))):
                _fill(draw, getattr(message, field.name).add(), values, without)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            _fill(draw, getattr(message, field.name), values, without)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values(field), max_size=4)))
        else:
            setattr(message, field.name, draw(values(field)))


def room_configs(without: frozenset[str] = frozenset()) -> st.SearchStrategy[RoomConfig]:
    return messages(RoomConfig, without=without)


def enum_prefix(field: FieldDescriptor) -> str:
    return enum_of(field).values_by_number[0].name.removesuffix("UNSPECIFIED")


def livekit_twin(message: Message, twin: Message) -> Message:
    """LiveKit's message with the same values, field by field, by name."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_ENUM:
            if value:
                name = enum_of(field).values_by_number[value].name.removeprefix(enum_prefix(field))
                of_twin = next(other for other in fields_of(twin) if other.name == field.name)
                setattr(twin, field.name, enum_of(of_twin).values_by_name[name].number)
        elif is_map(field):
            for key in sorted(value):
                getattr(twin, field.name)[key] = value[key]
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(twin, field.name, value)
        elif field.is_repeated:
            for item in value:
                livekit_twin(item, getattr(twin, field.name).add())
        else:
            getattr(twin, field.name).SetInParent()
            livekit_twin(value, getattr(twin, field.name))
    return twin
