"""Protobuf ↔ the core's values, once, at the boundary."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from livekit_auth.v1 import grants_pb2, room_config_pb2
from livekit_auth_server.core.grants import CACHED_TEXTS, GROUPS, Grants, RoomConfig, remembered
from livekit_auth_server.core.policy import TokenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from livekit_auth.v1 import auth_service_pb2 as pb

Field = Any  # a FieldDescriptor: its type differs between protobuf's implementations

_KIND = "PARTICIPANT_KIND_"
KIND_NAMES = {number: name.removeprefix(_KIND).lower() for name, number in grants_pb2.ParticipantKind.items() if number}
KIND_NUMBERS = {name: number for number, name in KIND_NAMES.items()}


def token_request(request: pb.IssueTokenRequest) -> TokenRequest:
    """A validated request as the policy takes it."""
    return TokenRequest(
        access=request.role if request.HasField("role") else grants_from_bytes(request.grants.SerializeToString()),
        project=request.project,
        room=request.room,
        identity=request.identity,
        name=request.name,
        metadata=request.metadata,
        attributes=tuple(sorted(request.attributes.items())) if request.attributes else (),
        ttl=request.ttl.seconds if request.HasField("ttl") else None,
        kind=KIND_NAMES[request.kind] if request.kind else "",
        room_config=room_config(request.room_config) if request.HasField("room_config") else None,
        room_preset=request.room_preset,
    )


@lru_cache(maxsize=CACHED_TEXTS)
def grants_from_bytes(data: bytes) -> Grants:
    """A serialised v1.Grants as the core's; the same few come again and again."""
    message = grants_pb2.Grants.FromString(data)
    groups = {
        name: _group_from_message(cls, getattr(message, name)) for name, cls in GROUPS.items() if message.HasField(name)
    }
    return Grants(**groups)


def _group_from_message(cls: type[Any], message: Message) -> Any:  # noqa: ANN401 - an instance of cls
    values: dict[str, Any] = {}
    for f in fields(cls):
        value = getattr(message, f.name)
        declared: Field = message.DESCRIPTOR.fields_by_name[f.name]
        if declared.type == FieldDescriptor.TYPE_ENUM:
            value = tuple(_livekit_name(declared, number).lower() for number in value)
        elif isinstance(f.default, tuple):
            value = tuple(value)
        elif declared.has_presence and not message.HasField(f.name):
            value = f.default  # true is spelled out in the token, as livekit-api does
        values[f.name] = value
    return cls(**values)


@remembered
def grants_message(grants: Grants) -> grants_pb2.Grants:
    """The core's grants as a message. Shared: copy it, don't change it."""
    message = grants_pb2.Grants()
    for name in GROUPS:
        group = getattr(grants, name)
        if group is None:
            continue
        target = getattr(message, name)
        target.SetInParent()
        for f in fields(group):
            value = getattr(group, f.name)
            declared: Field = target.DESCRIPTOR.fields_by_name[f.name]
            if declared.type == FieldDescriptor.TYPE_ENUM:
                getattr(target, f.name).extend(_numbers(declared)[text.upper()] for text in value)
            elif isinstance(value, tuple):
                getattr(target, f.name).extend(value)
            elif value is not None:
                setattr(target, f.name, value)
    return message


def room_config(message: room_config_pb2.RoomConfig) -> RoomConfig:
    """A room configuration as the claim "roomConfig" and the powers that it needs."""
    powers = {"room_config"}
    if message.HasField("egress"):
        powers.add("room_config_egress")
    if message.agents:
        powers.add("room_config_agents")
    if message.name:
        powers.add("room_preset")
    return RoomConfig(json.dumps(_to_claim(message), separators=(",", ":")), frozenset(powers))


_MOST_MEMBERS = 64  # of a list or map in a verified token's room configuration

# This contract's enums have an unspecified value before LiveKit's own first one, which protojson leaves out.
_FIRST = 1


def _to_claim(message: Message) -> dict[str, Any]:
    """The message as protojson of LiveKit's message of the same fields, which are numbered in LiveKit's order."""
    claim: dict[str, Any] = {}
    field: Field
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_ENUM:
            if value > _FIRST or (field.containing_oneof is not None and value == _FIRST):
                claim[field.camelcase_name] = _livekit_name(field, value)
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            claim[field.camelcase_name] = value
        elif field.message_type.GetOptions().map_entry:
            claim[field.camelcase_name] = dict(sorted(value.items()))
        elif field.is_repeated:
            claim[field.camelcase_name] = [_to_claim(item) for item in value]
        else:
            claim[field.camelcase_name] = _to_claim(value)
    return claim


def room_config_message(claim: Mapping[str, Any]) -> room_config_pb2.RoomConfig:
    """The claim "roomConfig" of a verified token, without what this contract doesn't model: credentials, for one."""
    message = room_config_pb2.RoomConfig()
    _from_claim(claim, message)
    return message


def _from_claim(claim: Mapping[str, Any], message: Message) -> None:
    for field in message.DESCRIPTOR.fields:
        value = claim.get(field.camelcase_name, claim.get(field.name))  # the Kotlin SDK writes snake_case
        if value is None:
            continue
        try:
            _set(message, field, value)
        except (TypeError, ValueError, AttributeError):
            message.ClearField(field.name)  # another type than LiveKit's: nothing of this field


def _set(message: Message, field: Field, value: Any) -> None:  # noqa: ANN401 - JSON
    if field.type == FieldDescriptor.TYPE_ENUM:
        if value in _numbers(field):
            setattr(message, field.name, _numbers(field)[value])
    elif field.type != FieldDescriptor.TYPE_MESSAGE:
        setattr(message, field.name, value)
    elif field.message_type.GetOptions().map_entry:
        if len(value) > _MOST_MEMBERS:
            raise ValueError("more members than the contract has room for")
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        if len(value) > _MOST_MEMBERS:
            raise ValueError("more members than the contract has room for")
        for item in value:
            _from_claim(item, getattr(message, field.name).add())
    else:
        getattr(message, field.name).SetInParent()
        _from_claim(value, getattr(message, field.name))


@lru_cache(maxsize=256)
def _numbers(field: Field) -> dict[str, int]:
    """The numbers of an enum's values by LiveKit's names."""
    return {_livekit_name(field, number): number for number in field.enum_type.values_by_number}


@lru_cache(maxsize=256)
def _livekit_name(field: Field, number: int) -> str:
    """The value's name without this contract's prefix, which is LiveKit's name."""
    values = field.enum_type.values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    name: str = values[number].name
    return name.removeprefix(prefix)


def cut(text: str, limit: int) -> str:
    """The text's first whole characters, within a limit in bytes."""
    if len(text) <= limit // 4:  # no character takes more than 4 bytes
        return text
    data = text.encode()
    return text if len(data) <= limit else data[:limit].decode(errors="ignore")
