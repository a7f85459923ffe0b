"""A token to ask for, and its conversion to the contract's message: the one place where it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from livekit_auth.v1.auth_service_pb2 import IssueTokenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from livekit_auth.v1.grants_pb2 import Grants, ParticipantKind
    from livekit_auth.v1.room_config_pb2 import RoomConfig

Kind = Literal["standard", "egress", "ingress", "sip", "agent"]
"""The kind of participant, by LiveKit's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One token to ask for. Fields, limits and defaults are those of IssueTokenRequest in auth_service.proto."""

    room: str = ""
    """The room that the video grants apply to; at most 256 bytes. A token that joins must name one."""
    identity: str = ""
    """The participant's identity; at most 256 bytes. A token that joins must have one."""
    role: str | None = None
    """A role of the policy, by name; or `grants`."""
    grants: Grants | None = None
    """The grants spelled out, where the policy lets this caller do that; or `role`."""
    project: str = ""
    """The LiveKit project; may be empty when the caller has exactly one."""
    name: str = ""
    """The participant's display name; at most 256 bytes."""
    metadata: str = ""
    """The participant's metadata; at most 512 KiB."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The participant's attributes; at most 64 KiB for all keys and values together."""
    ttl: timedelta | None = None
    """How long the token is valid, in whole seconds; None takes the policy's default."""
    kind: Kind | ParticipantKind | None = None
    """The kind of participant, by name or as the contract's enum; None puts none in the token."""
    room_config: RoomConfig | None = None
    """How LiveKit sets up the room if this participant is the first in it."""
    room_preset: str = ""
    """A room preset configured in the LiveKit server; at most 256 bytes."""
    validate_only: bool = False
    """Run every check and mint nothing: the result has an empty token."""

    def __post_init__(self) -> None:
        """Raises ValueError for what the contract's message can't express: both accesses, or an unknown kind."""
        if self.role is not None and self.grants is not None:
            raise ValueError("give a role or grants, not both")
        if isinstance(self.kind, str) and self.kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {self.kind!r}")


def encode(request: TokenRequest) -> IssueTokenRequest:
    """The contract's message for a request. Checks nothing: the server's rules are the only ones."""
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
    )
    if request.role is not None:
        message.role = request.role
    if request.grants is not None:
        message.grants.CopyFrom(request.grants)
    if request.ttl is not None:
        message.ttl.FromTimedelta(request.ttl)
    return message


def _kind(kind: Kind | ParticipantKind | None) -> ParticipantKind | str | None:
    """The enum's value or, for a name of LiveKit's, the name of the enum's value."""
    return f"PARTICIPANT_KIND_{kind.upper()}" if isinstance(kind, str) else kind
