"""The server's responses about tokens, as frozen values with aware datetimes.

`Grants` and `RoomConfig` stay protobuf messages, because callers may want to pass them on. A response that breaks the
contract raises ServerError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import AuthError, ServerError, unusable
from livekit_auth._messages.status import to_error
from livekit_auth.v1.grants_pb2 import ParticipantKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.timestamp_pb2 import Timestamp

    from livekit_auth._messages.requests import TokenRequest
    from livekit_auth.v1 import auth_service_pb2 as pb
    from livekit_auth.v1.grants_pb2 import Grants
    from livekit_auth.v1.room_config_pb2 import RoomConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """An issued token. It may be logged: its repr omits the token."""

    token: str = field(repr=False)
    """The LiveKit access token: a bearer secret. Empty with validate_only."""
    url: str
    """The URL of the project's LiveKit server, to connect to with the token."""
    expire_time: datetime
    """When it stops being valid, in UTC, in whole seconds."""
    issue_time: datetime
    """When it was issued and becomes valid, in UTC, in whole seconds."""
    grants: Grants
    """The effective grants, including LiveKit's defaults."""
    key_id: str
    """The id of the API key that signed it."""
    policy_revision: str
    """The revision of the policy that permitted it."""
    decision_id: str
    """The id of the decision in the server's audit trail."""
    project: str
    """The LiveKit project of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A LiveKit access token that is valid now, by the server's clock with 60 s of leeway."""

    grants: Grants
    """Its grants; a boolean that has a LiveKit default is unset if the token doesn't set it."""
    room: str
    """The room that the video grants apply to; empty if it names none."""
    identity: str
    """The participant's identity; empty if it has none."""
    name: str
    """The participant's display name; empty if it has none."""
    metadata: str
    """The participant's metadata; empty if it has none."""
    attributes: Mapping[str, str]
    """The participant's attributes."""
    kind: str
    """The kind of participant, such as "agent"; empty if it names none, or one unknown to this version."""
    raw_kind: str
    """The kind's name as the token has it, at most 64 bytes; empty if it names none."""
    room_preset: str
    """The room preset; empty if it names none."""
    room_config: RoomConfig | None
    """The room configuration, without storage credentials; None if it has none."""
    issue_time: datetime | None
    """When it becomes valid, in UTC; None if the token doesn't say."""
    expire_time: datetime
    """When it stops being valid, in UTC."""
    key_id: str
    """The id of the API key that signed it."""
    project: str
    """The LiveKit project that the key belongs to."""
    other_claims: tuple[str, ...]
    """The names of claims that aren't part of the contract, sorted; at most 32."""


def to_datetime(timestamp: Timestamp) -> datetime:
    """Converts a timestamp to an aware datetime in UTC. Raises ServerError outside the years 1 to 9999."""
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (OverflowError, ValueError):
        raise unusable("a time out of range") from None


def issued_token(message: pb.IssueTokenResponse, *, validate_only: bool = False) -> IssuedToken:
    """Reads IssueTokenResponse, the response to a request with or without `validate_only`.

    A token with characters that a JWT can't have is refused: it could end a header or a line.
    """
    if not (_TOKEN.fullmatch(message.token) or (validate_only and not message.token)):
        raise unusable("the token isn't a JWT")
    return IssuedToken(
        token=message.token,
        url=message.url,
        expire_time=to_datetime(message.expire_time),
        issue_time=to_datetime(message.issue_time),
        grants=message.grants,
        key_id=message.key_id,
        policy_revision=message.policy_revision,
        decision_id=message.decision_id,
        project=message.project,
    )


_TOKEN = re.compile(r"[A-Za-z0-9._-]+")


def batch(message: pb.BatchIssueTokensResponse, requests: Sequence[TokenRequest]) -> list[IssuedToken | AuthError]:
    """Reads BatchIssueTokensResponse: one result per request, in the same order."""
    if len(message.results) != len(requests):
        raise unusable(f"{len(message.results)} results for {len(requests)} requests")
    return [_result(result, request) for result, request in zip(message.results, requests, strict=True)]


def _result(message: pb.IssueTokenResult, request: TokenRequest) -> IssuedToken | AuthError:
    # An unknown outcome is read as an error without a code, never as a token.
    if not message.HasField("response"):
        return to_error(message.error)
    try:
        return issued_token(message.response, validate_only=request.validate_only)
    except ServerError as error:
        return error


def verified_token(message: pb.VerifyTokenResponse) -> VerifiedToken:
    """Reads VerifyTokenResponse."""
    return VerifiedToken(
        grants=message.grants,
        room=message.room,
        identity=message.identity,
        name=message.name,
        metadata=message.metadata,
        attributes=dict(message.attributes),
        kind=_kind(message.kind),
        raw_kind=message.raw_kind,
        room_preset=message.room_preset,
        room_config=message.room_config if message.HasField("room_config") else None,
        issue_time=to_datetime(message.issue_time) if message.HasField("issue_time") else None,
        expire_time=to_datetime(message.expire_time),
        key_id=message.key_id,
        project=message.project,
        other_claims=tuple(message.other_claims),
    )


def _kind(kind: ParticipantKind) -> str:
    if kind == ParticipantKind.PARTICIPANT_KIND_UNSPECIFIED or kind not in ParticipantKind.values():
        return ""
    return ParticipantKind.Name(kind).removeprefix("PARTICIPANT_KIND_").lower()
