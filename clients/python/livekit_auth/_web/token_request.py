"""What a front end asks the token endpoint for, and what the application lets it have.

The rule between the two: whatever the front end asks for must be what the application answered, else the request is
refused with the field's name. Nothing is narrowed in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.json_format import ParseDict, ParseError

from livekit_auth._messages.requests import TokenRequest
from livekit_auth._web.responses import RefusedError
from livekit_auth.v1.room_config_pb2 import RoomConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

_Descriptor = Any  # its type differs between protobuf's implementations
_SHOWN = 64  # characters of a name that an answer repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the signed-in user may have now: the token is made of this and of nothing that the front end sent."""

    room: str
    """The room to join."""
    identity: str
    """The participant's identity: one for each user, never another's."""
    role: str
    """A role of the service's policy, by name."""
    name: str = ""
    """The display name."""
    metadata: str = ""
    """The participant's metadata, which everybody in the room can read."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The participant's attributes, which everybody in the room can read."""
    room_config: RoomConfig | None = None
    """How LiveKit sets the room up for the first to join. Needs powers in the policy."""
    ttl: timedelta | None = None
    """How long the token is valid for joining, in whole seconds; None takes the policy's default."""
    project: str = ""
    """The LiveKit project; may be empty when the service permits exactly one."""
    user_id: str = ""
    """The user's own id, where the identity is another text: what `user_id` in the older request must be."""

    def __post_init__(self) -> None:
        """Raises ValueError without a room, an identity or a role: LiveKit reads an empty room as any room."""
        missing = [name for name in ("room", "identity", "role") if not getattr(self, name)]
        if missing:
            raise ValueError(f"an Access needs {', '.join(missing)}")

    def request(self) -> TokenRequest:
        """The request to the service."""
        return TokenRequest(
            room=self.room,
            identity=self.identity,
            role=self.role,
            name=self.name,
            metadata=self.metadata,
            attributes=self.attributes,
            room_config=self.room_config,
            ttl=self.ttl,
            project=self.project,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedToken:
    """What a front end asks for, unchecked: every field may be None. An empty text counts as not given."""

    room_name: str | None = None
    """The room."""
    participant_identity: str | None = None
    """The identity."""
    participant_name: str | None = None
    """The display name."""
    participant_metadata: str | None = None
    """The participant's metadata."""
    participant_attributes: Mapping[str, str] | None = None
    """The participant's attributes."""
    room_config: RoomConfig | None = None
    """The room's configuration, such as the agents to dispatch."""
    user_id: str | None = None
    """The user's id, in the older request only."""


STANDARD = MappingProxyType({name: name for name in AskedToken.__dataclass_fields__ if name != "user_id"})
"""The fields of LiveKit's TokenSource.endpoint by their names in AskedToken."""

OLDER = MappingProxyType({"room": "room_name", "user_id": "user_id"})
"""The fields of the older request by their names in AskedToken."""

# The contract's fields by their names in AskedToken.
_CONTRACT = {
    "room": "room_name",
    "identity": "participant_identity",
    "name": "participant_name",
    "metadata": "participant_metadata",
    "attributes": "participant_attributes",
    "room_config": "room_config",
}


def check_members(members: Mapping[str, object], names: Mapping[str, str]) -> AskedToken:
    """Reads a request; `names` are the fields that it may have. Raises RefusedError (400), which names fields."""
    unknown = {name[:_SHOWN]: "isn't a field of this request" for name in members if name not in names}
    if unknown:
        raise RefusedError(400, "the request has fields that this endpoint doesn't take", fields=unknown)
    read: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for name, value in members.items():
        try:
            read[names[name]] = _read(names[name], value)
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        raise RefusedError(400, "the request has fields of another type", fields=wrong)
    return AskedToken(**read)  # type: ignore[arg-type] # _read sees to the types


def _read(attribute: str, value: object) -> object:
    """A field's value; null and empty texts count as not given. Raises ValueError, which says what it should be."""
    match attribute, value:
        case _, None | "":
            return None
        case "participant_attributes", dict():
            if not all(isinstance(item, str) for item in value.values()):
                raise ValueError("is an object of texts")
            return value
        case "participant_attributes", _:
            raise ValueError("is an object of texts")
        case "room_config", dict():
            return _room_config(cast("dict[str, object]", value))
        case "room_config", _:
            raise ValueError("is an object")
        case _, str():
            return value
        case _:
            raise ValueError("is a text")


def _room_config(value: dict[str, object]) -> RoomConfig:
    """LiveKit's RoomConfiguration as JSON. What the contract doesn't have is refused, never left out."""
    _check_names(value, RoomConfig.DESCRIPTOR)
    try:
        return ParseDict(value, RoomConfig())
    except (ParseError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).replace("livekit_auth.v1.", "").strip()[:200]
        raise ValueError(f"isn't a room configuration: {reason}") from None


def _check_names(value: object, kind: _Descriptor) -> None:
    """Raises ValueError for a name that isn't the field's own: protobuf takes two spellings, and both at once."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue  # of another type than a message, which ParseDict refuses
        for name, inner in item.items():
            field = kind.fields_by_name.get(name)
            if field is None:
                raise ValueError(f"has {name[:_SHOWN]!r}, which this endpoint doesn't take")
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                _check_names(inner, field.message_type)


def check_asked(asked: AskedToken, access: Access, names: Mapping[str, str]) -> None:
    """Raises RefusedError (403) with the names of fields that ask for something else than the access gives."""
    given = access.attributes.items()
    refused = {
        "room_name": asked.room_name not in (None, access.room),
        "participant_identity": asked.participant_identity not in (None, access.identity),
        "participant_name": asked.participant_name not in (None, access.name),
        "participant_metadata": asked.participant_metadata not in (None, access.metadata),
        "participant_attributes": not (asked.participant_attributes or {}).items() <= given,
        "room_config": (asked.room_config or RoomConfig()) not in (RoomConfig(), access.room_config),
        "user_id": asked.user_id not in (None, access.identity, access.user_id),
    }
    fields = {name: "may not be this for you" for name, attribute in names.items() if refused[attribute]}
    if fields:
        raise RefusedError(403, "you may not have this", fields=fields)


def fields_at_fault(paths: Mapping[str, str], asked: AskedToken, names: Mapping[str, str]) -> dict[str, str]:
    """The violations of the contract's rules that the front end caused, by its own names of the fields."""
    own = {attribute: name for name, attribute in names.items()}
    found: dict[str, str] = {}
    for path, description in paths.items():
        attribute = _CONTRACT.get(path.partition(".")[0].partition("[")[0], "")
        if attribute == "participant_identity" and asked.user_id is not None:
            attribute = "user_id"
        if attribute in own and getattr(asked, attribute) is not None:
            found[own[attribute]] = description
    return found
