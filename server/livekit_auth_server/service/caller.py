"""GetCaller, ListPermissions and ListProjects: who the caller is, and what the policy permits it.

Guarantees: a caller learns of its own policy only. A page costs what is on it: sorting happens once for a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import permissions_pb2
from livekit_auth_server.service.convert import grants_message
from livekit_auth_server.service.methods import LIST_PERMISSIONS, LIST_PROJECTS
from livekit_auth_server.service.pages import Position, Room, invalid_token, page_token, position_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.policy import AllowEntry, Listing
    from livekit_auth_server.service.admission import Caller, ListedCaller
    from livekit_auth_server.service.validation import Valid


async def get_caller(caller: Caller, _request: Valid[pb.GetCallerRequest]) -> pb.GetCallerResponse:
    """GetCaller, for every caller that could be identified. A listed one learns the policy's revision too."""
    return pb.GetCallerResponse(
        workload_id=caller.identified.identity.text,
        listed=caller.policy is not None,
        policy_revision=caller.state_policy.revision if caller.policy is not None else "",
        certificate_serial=caller.identified.serial,
        certificate_expire_time=Timestamp(seconds=caller.identified.valid_until),
    )


async def list_permissions(
    caller: ListedCaller, request: Valid[pb.ListPermissionsRequest]
) -> pb.ListPermissionsResponse:
    """ListPermissions."""
    start = position_of(LIST_PERMISSIONS, caller, request.message.page_token)
    entries = caller.policy.entries
    if (start.item and start.item >= len(entries)) or (start.value and start.value >= _count(entries, start.item)):
        raise invalid_token()
    response = pb.ListPermissionsResponse(policy_revision=caller.state_policy.revision)
    following = _fill(response, caller, Room.of(request.message.page_size), start)
    response.next_page_token = page_token(LIST_PERMISSIONS, caller, following)
    return response


async def list_projects(caller: ListedCaller, request: Valid[pb.ListProjectsRequest]) -> pb.ListProjectsResponse:
    """ListProjects."""
    item, start = position_of(LIST_PROJECTS, caller, request.message.page_token)
    names = caller.policy.listing()
    if item or (start and start >= len(names)):
        raise invalid_token()
    response = pb.ListProjectsResponse(policy_revision=caller.state_policy.revision)
    room, default = Room.of(request.message.page_size), caller.policy.project_of("")
    while start < len(names) and not room.full():
        project = _project(caller, names[start], default)
        response.projects.append(project)
        room.take(project.ByteSize())
        start += 1
    following = Position(0, start) if start < len(names) else None
    response.next_page_token = page_token(LIST_PROJECTS, caller, following)
    return response


def _count(entries: tuple[AllowEntry, ...], index: int) -> int:
    return sum(len(values) for _, _, values in entries[index].listing()) if index < len(entries) else 0


def _fill(response: pb.ListPermissionsResponse, caller: ListedCaller, room: Room, start: Position) -> Position | None:
    """Fills the page. Returns where the next begins. Every page has at least one value, or one entry without any."""
    entries, offset = caller.policy.entries, start.value
    for index in range(start.item, len(entries)):
        if room.full():
            return Position(index, 0)
        message = _head(entries[index], index)
        size = message.ByteSize()
        for field, kind, value in _from(entries[index].listing(), offset):
            if room.full():
                response.entries.append(message)
                return Position(index, offset)
            room.take(size + _add(message, field, kind, value, caller.state_policy.roles))
            size, offset = 0, offset + 1
        if not offset:
            room.take(size)
        response.entries.append(message)
        offset = 0
    return None


def _from(listing: Listing, start: int) -> Iterator[tuple[str, str, str]]:
    """The values from this one on, without looking at those before."""
    for field, kind, values in listing:
        for number in range(start, len(values)):
            yield field, kind, values[number]
        start = max(0, start - len(values))


def _head(entry: AllowEntry, index: int) -> permissions_pb2.AllowEntry:
    return permissions_pb2.AllowEntry(
        name=entry.name,
        index=index,
        default_ttl=Duration(seconds=entry.default_ttl),
        max_ttl=Duration(seconds=entry.max_ttl),
    )


def _add(message: permissions_pb2.AllowEntry, field: str, kind: str, value: str, roles: Mapping[str, Grants]) -> int:
    """Adds a value. Returns the bytes that it takes, about."""
    if kind:
        matcher = getattr(message, field).add()
        setattr(matcher, kind, True if kind == "any" else value)
        size: int = matcher.ByteSize()
        return size
    if field == "roles":
        role = permissions_pb2.Role(name=value, grants=grants_message(roles[value]))
        message.roles.append(role)
        return role.ByteSize()
    getattr(message, field).append(value)
    return len(value)


def _project(caller: ListedCaller, name: str, default: str) -> permissions_pb2.Project:
    policy, keys = caller.policy, caller.keys.projects.get(name)
    return permissions_pb2.Project(
        name=name,
        url=keys.url if keys is not None else "",
        is_default=name == default,
        issue_tokens=name in policy.projects,
        verify_webhooks=name in policy.verify_webhooks,
        verify_tokens=name in policy.verify_tokens,
        read_decisions=name in policy.read_decisions,
    )
