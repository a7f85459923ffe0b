"""A token request, and its only conversion to the contract's message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from livekit_auth.v1.auth_service_pb2 import IssueTokenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from livekit_auth.v1.grants_pb2 import Grants, ParticipantKind
    from livekit_auth.v1.room_config_pb2 import RoomConfig

Kind = Literal["standard", "egress", "ingress", "sip", "agent", "connector", "bridge"]
"""The kind of participant, by LiveKit's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request for one token. Fields, limits and defaults are those of IssueTokenRequest in auth_service.proto."""

    room: str = ""
    """The room that the video grants apply to; at most 256 bytes. Required for a token that joins a room."""
    identity: str = ""
    """The participant's identity; at most 256 bytes. Required for a token that joins a room."""
    role: str | None = None
    """The name of a role in the policy. Give either this or `grants`."""
    grants: Grants | None = None
    """Explicit grants, if the policy permits them to this caller. Give either this or `role`."""
    project: str = ""
    """The LiveKit project; may be empty if the caller has exactly one, or a default one."""
    name: str = ""
    """The participant's display name; at most 256 bytes."""
    metadata: str = ""
    """The participant's metadata; at most 512 KiB."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The participant's attributes; at most 64 KiB for all keys and values."""
    ttl: timedelta | None = None
    """How long the token is valid, in whole seconds; None means the policy's default."""
    kind: Kind | ParticipantKind | None = None
    """The kind of participant, by name or as the contract's enum; None leaves it out of the token."""
    room_config: RoomConfig | None = None
    """How LiveKit configures the room if this participant is the first to join."""
    room_preset: str = ""
    """A room preset of the LiveKit server; at most 256 bytes."""
    validate_only: bool = False
    """Run all checks without minting a token: the result has an empty token."""
    request_reason: str = ""
    """Who or what is behind the request, such as a ticket, for the audit trail; at most 256 bytes. Not for secrets."""

    def __post_init__(self) -> None:
        """Raises ValueError for what the contract's message can't express: role and grants, or an unknown kind."""
        if self.role is not None and self.grants is not None:
            raise ValueError("give either role or grants, not both")
        if isinstance(self.kind, str) and self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r}")


def encode(request: TokenRequest) -> IssueTokenRequest:
    """Converts a request to the contract's message. Validates nothing: that is left to the server."""
    message = IssueTokenRequest(
        project=request.project,
        identity=request.identity,
        name=request.name,
        metadata=request.metadata,
        attributes=request.attributes,
        room=request.room,
        kind=_kind(request.kind),
        room_config=request.room_config,
        room_preset=request.room_preset,
        validate_only=request.validate_only,
        request_reason=request.request_reason,
    )
    if request.role is not None:
        message.role = request.role
    if request.grants is not None:
        message.grants.CopyFrom(request.grants)
    if request.ttl is not None:
        message.ttl.FromTimedelta(request.ttl)
    return message


def _kind(kind: Kind | ParticipantKind | None) -> ParticipantKind | str | None:
    """The enum value or, for one of LiveKit's names, the name of the enum value."""
    return f"PARTICIPANT_KIND_{kind.upper()}" if isinstance(kind, str) else kind
