"""What a front end requests from the token endpoint, and what the application permits.

Each requested field must equal what the application permits. Otherwise the request is refused and the response names
the field; nothing is silently narrowed.
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
_SHOWN = 64  # characters of a name that a response repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the signed-in user may have. The token is made from this, and from nothing that the front end sent."""

    room: str
    """The room to join."""
    identity: str
    """The participant's identity, unique to the user."""
    role: str
    """The name of a role in the server's policy."""
    name: str = ""
    """The display name."""
    metadata: str = ""
    """The participant's metadata. Everyone in the room can read it."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The participant's attributes. Everyone in the room can read them."""
    room_config: RoomConfig | None = None
    """How LiveKit configures the room for the first participant. Needs powers in the policy."""
    ttl: timedelta | None = None
    """How long the token is valid for joining, in whole seconds; None means the policy's default."""
    project: str = ""
    """The LiveKit project; may be empty if the policy permits exactly one, or has a default one."""
    user_id: str = ""
    """The user's id, if it differs from the identity: `user_id` in the older request may be either."""
    request_reason: str = ""
    """Who or what is behind the request, such as the user's id, for the server's audit trail; at most 256 bytes."""

    def __post_init__(self) -> None:
        """Raises ValueError without a room, an identity or a role. LiveKit treats an empty room as any room."""
        missing = [name for name in ("room", "identity", "role") if not getattr(self, name)]
        if missing:
            raise ValueError(f"Access needs {', '.join(missing)}")

    def request(self) -> TokenRequest:
        """The request to the livekit-auth server."""
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
            request_reason=self.request_reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedToken:
    """What a front end requests, unverified. Each field may be None; an empty string counts as not given."""

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
    """The room configuration, such as the agents to dispatch."""
    user_id: str | None = None
    """The user's id; only in the older request."""


STANDARD = MappingProxyType({name: name for name in AskedToken.__dataclass_fields__ if name != "user_id"})
"""Maps the fields of LiveKit's TokenSource.endpoint to those of AskedToken."""

OLDER = MappingProxyType({"room": "room_name", "user_id": "user_id"})
"""Maps the fields of the older request to those of AskedToken."""

# Maps the contract's fields to those of AskedToken.
_CONTRACT = {
    "room": "room_name",
    "identity": "participant_identity",
    "name": "participant_name",
    "metadata": "participant_metadata",
    "attributes": "participant_attributes",
    "room_config": "room_config",
}


def read_request(members: Mapping[str, object], names: Mapping[str, str]) -> AskedToken:
    """Reads a request with the fields in `names`. Raises RefusedError (400), which names the invalid fields."""
    unknown = {name[:_SHOWN]: "unknown field" for name in members if name not in names}
    if unknown:
        raise RefusedError(400, "the request has unknown fields", fields=unknown)
    read: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for name, value in members.items():
        try:
            read[names[name]] = _read(names[name], value)
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        raise RefusedError(400, "the request has fields of the wrong type", fields=wrong)
    return AskedToken(**read)  # type: ignore[arg-type] # _read checks the types


def _read(attribute: str, value: object) -> object:
    """The value of a field; null and "" count as not given. Raises ValueError, which says what it should be."""
    match attribute, value:
        case _, None | "":
            return None
        case "participant_attributes", dict():
            if not all(isinstance(item, str) for item in value.values()):
                raise ValueError("must be an object of strings")
            return value
        case "participant_attributes", _:
            raise ValueError("must be an object of strings")
        case "room_config", dict():
            return _room_config(cast("dict[str, object]", value))
        case "room_config", _:
            raise ValueError("must be an object")
        case _, str():
            return value
        case _:
            raise ValueError("must be a string")


def _room_config(value: dict[str, object]) -> RoomConfig:
    """Parses LiveKit's RoomConfiguration as JSON. A field that the contract lacks is refused, not ignored."""
    _check_names(value, RoomConfig.DESCRIPTOR)
    try:
        return ParseDict(value, RoomConfig())
    except (ParseError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).replace("livekit_auth.v1.", "").strip()[:200]
        raise ValueError(f"not a room configuration: {reason}") from None


def _check_names(value: object, kind: _Descriptor) -> None:
    """Raises ValueError unless a name is the field's own. Protobuf accepts a second spelling, even both at once."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue  # not a message: ParseDict refuses it
        for name, inner in item.items():
            field = kind.fields_by_name.get(name)
            if field is None:
                raise ValueError(f"unknown field {name[:_SHOWN]!r}")
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                _check_names(inner, field.message_type)


def check_allowed(asked: AskedToken, access: Access, names: Mapping[str, str]) -> None:
    """Raises RefusedError (403), naming the fields whose requested value differs from what `access` permits."""
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
    fields = {name: "this value isn't allowed for you" for name, attribute in names.items() if refused[attribute]}
    if fields:
        raise RefusedError(403, "the request isn't allowed", fields=fields)


def fields_at_fault(paths: Mapping[str, str], asked: AskedToken, names: Mapping[str, str]) -> dict[str, str]:
    """The violations that the front end caused, by its own field names."""
    own = {attribute: name for name, attribute in names.items()}
    found: dict[str, str] = {}
    for path, description in paths.items():
        attribute = _CONTRACT.get(path.partition(".")[0].partition("[")[0], "")
        if attribute == "participant_identity" and asked.user_id is not None:
            attribute = "user_id"
        if attribute in own and getattr(asked, attribute) is not None:
            found[own[attribute]] = description
    return found
