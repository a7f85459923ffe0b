"""The server's responses about callers: who they are, and what the policy permits them, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from livekit_auth._messages.results import to_datetime
from livekit_auth._messages.status import to_timedelta

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from livekit_auth.v1 import auth_service_pb2 as pb
    from livekit_auth.v1 import permissions_pb2
    from livekit_auth.v1.grants_pb2 import Grants


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How the server identifies this caller."""

    workload_id: str
    """The identity in the certificate: "spiffe://…" or "dns:…"."""
    listed: bool
    """Whether the policy lists the caller."""
    policy_revision: str
    """The revision of the policy in force; empty if the caller isn't listed."""
    certificate_serial: str
    """The certificate's serial number, in lower-case hexadecimal."""
    certificate_expire_time: datetime
    """When the certificate expires, in UTC."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A pattern that a room name or an identity is compared with, byte for byte."""

    match: Literal["exact", "prefix", "any", "unknown"]
    """The kind of match; "unknown" if a newer server uses one that this version doesn't know."""
    value: str = ""
    """The value to match; empty for "any"."""

    def __str__(self) -> str:
        return f"{self.match}:{self.value}" if self.value else self.match


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role of the policy."""

    name: str
    """The name, as a token request takes it."""
    grants: Grants
    """What a token with this role allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowEntry:
    """An allow entry of a caller's policy. It permits a request only as a whole."""

    name: str
    """Its name in decisions and the audit trail."""
    index: int
    """Its place in the policy, counted from 0. Entries are tried in this order."""
    projects: tuple[str, ...]
    """The projects it covers, sorted."""
    roles: tuple[Role, ...]
    """The roles it permits, sorted by name."""
    grants: tuple[str, ...]
    """The ordinary grants that may be given explicitly, sorted; empty if a role is required."""
    powers: tuple[str, ...]
    """The powers it gives, sorted."""
    rooms: tuple[Matcher, ...]
    """The rooms it covers; empty means none."""
    identities: tuple[Matcher, ...]
    """The identities it covers; empty means none."""
    default_ttl: timedelta
    """The ttl of a request that doesn't set one."""
    max_ttl: timedelta
    """The longest ttl it permits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A LiveKit project, and what the caller may do in it."""

    name: str
    """The project's name."""
    url: str
    """The URL of the project's LiveKit server; empty if the server has no keys for the project."""
    is_default: bool
    """Whether a request that names no project gets this one."""
    issue_tokens: bool
    """Whether an entry of the policy covers it."""
    verify_webhooks: bool
    """Whether the caller may verify its webhooks."""
    verify_tokens: bool
    """Whether the caller may verify its tokens."""
    read_decisions: bool
    """Whether the caller may read the decisions of other callers in it."""


def caller(message: pb.GetCallerResponse) -> Caller:
    """Reads GetCallerResponse."""
    return Caller(
        workload_id=message.workload_id,
        listed=message.listed,
        policy_revision=message.policy_revision,
        certificate_serial=message.certificate_serial,
        certificate_expire_time=to_datetime(message.certificate_expire_time),
    )


def allow_entries(pages: Iterable[pb.ListPermissionsResponse]) -> list[AllowEntry]:
    """Reads the pages of ListPermissions, and joins the parts of an entry that goes on over several pages."""
    entries: list[permissions_pb2.AllowEntry] = []
    for part in (part for page in pages for part in page.entries):
        if entries and entries[-1].index == part.index:
            entries[-1].MergeFrom(part)  # appends lists
        else:
            entries.append(part)
    return [_allow_entry(entry) for entry in entries]


def projects(pages: Iterable[pb.ListProjectsResponse]) -> list[Project]:
    """Reads the pages of ListProjects."""
    return [
        Project(
            name=project.name,
            url=project.url,
            is_default=project.is_default,
            issue_tokens=project.issue_tokens,
            verify_webhooks=project.verify_webhooks,
            verify_tokens=project.verify_tokens,
            read_decisions=project.read_decisions,
        )
        for page in pages
        for project in page.projects
    ]


def _allow_entry(message: permissions_pb2.AllowEntry) -> AllowEntry:
    return AllowEntry(
        name=message.name,
        index=message.index,
        projects=tuple(message.projects),
        roles=tuple(Role(name=role.name, grants=role.grants) for role in message.roles),
        grants=tuple(message.grants),
        powers=tuple(message.powers),
        rooms=tuple(_matcher(room) for room in message.rooms),
        identities=tuple(_matcher(identity) for identity in message.identities),
        default_ttl=to_timedelta(message.default_ttl),
        max_ttl=to_timedelta(message.max_ttl),
    )


def _matcher(message: permissions_pb2.Matcher) -> Matcher:
    match message.WhichOneof("match"):
        case "exact":
            return Matcher("exact", message.exact)
        case "prefix":
            return Matcher("prefix", message.prefix)
        case "any":
            return Matcher("any")
        case _:
            return Matcher("unknown")
