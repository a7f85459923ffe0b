"""What livekit-api and livekit-protocol can put into a token, read off their own classes, beside this contract."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import livekit.api.access_token as livekit_api
from livekit.protocol.models import ParticipantInfo, TrackSource

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import grants_pb2
from livekit_auth_server.core.grants import CLAIMS, PARTICIPANT_KINDS, TRACK_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

claim_of = livekit_api.snake_to_lower_camel


def groups_of(claims: type[Any] = livekit_api.Claims) -> dict[str, type[Any]]:
    """The class of each group of grants in livekit-api's Claims, by its claim, in its order."""
    found = {}
    for name, hint in get_type_hints(claims).items():
        for cls in filter(is_dataclass, get_args(hint)):
            assert isinstance(cls, type)
            found[claim_of(name)] = cls
    return found


LIVEKIT_GROUPS = {name: groups_of()[claim] for name, claim in CLAIMS.items()}
LIVEKIT_NAMES = {
    name: f.name for f in fields(livekit_api.Claims) for name, claim in CLAIMS.items() if claim == claim_of(f.name)
}
"""livekit-api's name of each group: "agent" for cloud_agent."""


def lacking_claims(claims: type[Any] = livekit_api.Claims) -> Iterator[str]:
    """The claims and grants of livekit-api that a request of this contract can't name, as "video.canFly"."""
    request, grants = pb.IssueTokenRequest.DESCRIPTOR, grants_pb2.Grants.DESCRIPTOR
    groups: dict[str, Any] = {CLAIMS[field.name]: field.message_type for field in grants.fields}
    members = {claim: {field.camelcase_name for field in group.fields} for claim, group in groups.items()}
    members["video"].add("room")  # the request's
    others = {field.camelcase_name for field in request.fields} | {"sha256"}  # which only a webhook's token has
    theirs = groups_of(claims)
    yield from {claim_of(f.name) for f in fields(claims)} - others - members.keys()
    for claim in theirs.keys() & members.keys():
        yield from (
            f"{claim}.{name}" for f in fields(theirs[claim]) if (name := claim_of(f.name)) not in members[claim]
        )


def differing_kinds(names: Iterable[str] = tuple(ParticipantInfo.Kind.keys())) -> set[str]:
    """The kinds of participants that only one of livekit-protocol and this contract has."""
    return {name.lower() for name in names} ^ set(PARTICIPANT_KINDS)


def differing_sources(names: Iterable[str] = tuple(TrackSource.keys())) -> set[str]:
    """The track sources that only one of the two has; "unknown" is none."""
    return {name.lower() for name in names} ^ {"unknown", *TRACK_SOURCES}
