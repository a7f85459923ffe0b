"""Who may have which token. Default deny.

Guarantees:
- one allow entry must permit the whole request; entries never combine;
- a `Grant` exists only where `decide` made one, and `mint` takes nothing else;
- a decision's cost doesn't grow with the number of callers or roles;
- the answer is the same for a role or project that is unknown and for one that isn't permitted.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, final, get_args

from livekit_auth_server.core.grants import Grants, Needs, RoomConfig, needs
from livekit_auth_server.core.refusal import Reason, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth_server.core.limits import Limit

ROLE_NAME = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
"""The form of a role's name, as a regular expression for the whole of it."""
AGENT_TTL_LIMIT = 600
TTL_LIMIT = 3600
_NAMED_PROJECTS = 16  # an answer's trailers are bounded, the number of projects isn't


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token as a caller asks for it, after validation. `ttl` is in seconds; None takes the entry's default."""

    access: str | Grants
    project: str = ""
    room: str = ""
    identity: str = ""
    name: str = ""
    metadata: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    ttl: int | None = None
    kind: str = ""
    room_config: RoomConfig | None = None
    room_preset: str = ""


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a room or an identity is compared with: everything, whole values, or beginnings. Empty matches nothing."""

    any: bool = False
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def covers(self, value: str) -> bool:
        """Whether the value matches, byte for byte."""
        return self.any or value in self.exact or value.startswith(self.prefixes)

    def listing(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Its values by the field of v1.Matcher that holds them, sorted. Those beside `any` change nothing."""
        if self.any:
            return (("any", ("",)),)
        return ("exact", tuple(sorted(self.exact))), ("prefix", tuple(sorted(self.prefixes)))


Listing = tuple[tuple[str, str, tuple[str, ...]], ...]
_NAMES = ("projects", "roles", "grants", "powers")


@dataclass(frozen=True, slots=True)
class AllowEntry:
    """One compiled entry. ttls are in seconds. `powers` and `grants` hold names from core.grants."""

    name: str
    projects: frozenset[str]
    roles: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()
    powers: frozenset[str] = frozenset()
    rooms: Matcher = Matcher()
    identities: Matcher = Matcher()
    default_ttl: int = AGENT_TTL_LIMIT
    max_ttl: int = TTL_LIMIT
    _listing: list[Listing] = field(init=False, compare=False, repr=False, default_factory=list)

    def listing(self) -> Listing:
        """All its values by their field, and for matchers by the kind of match; sorted when first asked for."""
        if not self._listing:
            names = tuple((name, "", tuple(sorted(getattr(self, name)))) for name in _NAMES)
            rooms = tuple(("rooms", *kind) for kind in self.rooms.listing())
            identities = tuple(("identities", *kind) for kind in self.identities.listing())
            self._listing.append(names + rooms + identities)
        return self._listing[0]


Permission = Literal["projects", "verify_webhooks", "verify_tokens", "read_decisions"]
"""What a policy permits a caller in some projects, by the field of CallerPolicy. "projects" permits issuing tokens."""


@dataclass(frozen=True, slots=True)
class CallerPolicy:
    """What one workload identity may do, and how often.

    `default_project` is the project of a token request that names none; empty if the policy sets none.
    """

    id: str
    entries: tuple[AllowEntry, ...] = ()
    verify_webhooks: frozenset[str] = frozenset()
    verify_tokens: frozenset[str] = frozenset()
    limits: tuple[Limit, ...] = ()
    read_decisions: frozenset[str] = frozenset()
    default_project: str = ""
    projects: frozenset[str] = field(init=False)
    _listing: list[tuple[str, ...]] = field(init=False, compare=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        sets = {entry.projects for entry in self.entries}
        object.__setattr__(self, "projects", sets.pop() if len(sets) == 1 else frozenset().union(*sets))

    def permitted(self, permission: Permission | None) -> frozenset[str]:
        """The projects in which the caller has this permission; none for None."""
        found: frozenset[str] = getattr(self, permission) if permission is not None else frozenset()
        return found

    def project_of(self, named: str, permission: Permission | None = "projects") -> str:
        """The project of a request: the one it names, else the default one for tokens, else the only permitted one.

        Empty if none of these exists. The named project need not be permitted.
        """
        if named:
            return named
        if permission == "projects" and self.default_project:
            return self.default_project
        permitted = self.permitted(permission)
        return next(iter(permitted)) if len(permitted) == 1 else ""

    def listing(self) -> tuple[str, ...]:
        """Every project in which the caller has a permission; sorted when first asked for."""
        if not self._listing:
            self._listing.append(tuple(sorted(frozenset().union(*map(self.permitted, get_args(Permission))))))
        return self._listing[0]


@dataclass(frozen=True, slots=True)
class Policy:
    """A compiled policy. `revision` names its text."""

    revision: str
    roles: Mapping[str, Grants]
    callers: Mapping[str, CallerPolicy]
    role_needs: Mapping[str, Needs] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Made here once: a cache of what grants need would hash them at every decision.
        object.__setattr__(self, "role_needs", {name: needs(grants) for name, grants in self.roles.items()})


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that keeps an entry from permitting a request."""

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violation: Violation | None = None


_SEAL = object()
_ONLY_DECIDE = "a Grant comes from policy.decide only"


@final
@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to mint one token. Only `decide` makes one: it can't be constructed, copied, unpickled or derived.

    `powers` are those that the token takes.
    """

    project: str
    request: TokenRequest
    grants: Grants
    powers: frozenset[str]
    ttl: int
    entry: str
    policy_revision: str
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError(_ONLY_DECIDE)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(_ONLY_DECIDE)

    def __reduce__(self) -> NoReturn:
        raise TypeError(_ONLY_DECIDE)

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError(_ONLY_DECIDE)


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal: the reason that reaches the caller, and what each entry lacked, for explain and the audit trail."""

    reason: Reason
    message: str
    project: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violation: Violation | None = None
    lacked: tuple[tuple[str, tuple[Lack, ...]], ...] = ()


Decision = Grant | Denial


def decide(policy: Policy, caller: CallerPolicy, request: TokenRequest) -> Decision:
    """Permits the request by the first entry that permits all of it, or says what the closest entry lacked."""
    project = caller.project_of(request.project)
    if not project and caller.projects:
        names = ", ".join(sorted(caller.projects)[:_NAMED_PROJECTS])
        more = " and others" if len(caller.projects) > _NAMED_PROJECTS else ""
        return Denial(Reason.PROJECT_REQUIRED, f"name one of your projects: {names}{more}", "")
    if isinstance(request.access, str):
        grants, needed = policy.roles.get(request.access), policy.role_needs.get(request.access)
    else:
        grants, needed = request.access, needs(request.access)
    powers = required_powers(needed, request) if needed is not None else frozenset()
    lacked: list[tuple[str, tuple[Lack, ...]]] = []
    for entry in caller.entries:
        lacks = _lacks(entry, project, request, grants, needed, powers)
        if not lacks and grants is not None:
            ttl = entry.default_ttl if request.ttl is None else request.ttl
            return Grant(project, request, grants, powers, ttl, entry.name, policy.revision, _SEAL)
        lacked.append((entry.name, lacks))
    if not lacked:
        return Denial(Reason.PROJECT_NOT_PERMITTED, "the policy permits this caller no token", project)
    closest = max((lacks[0] for _, lacks in lacked), key=lambda lack: _STAGES.index(lack.reason))
    return Denial(closest.reason, closest.message, project, closest.metadata, closest.violation, tuple(lacked))


# The order in which an entry's checks are made and, of several entries, how close each came to permitting the request.
# A caller hears of the closest entry's first lack only. What the request itself misses is said only to a caller that
# may have the access at all.
_STAGES = (
    Reason.PROJECT_NOT_PERMITTED,
    Reason.ROLE_NOT_PERMITTED,
    Reason.GRANT_NOT_PERMITTED,
    Reason.POWER_NOT_PERMITTED,
    Reason.REQUEST_INVALID,
    Reason.ROOM_NOT_PERMITTED,
    Reason.IDENTITY_NOT_PERMITTED,
    Reason.TTL_NOT_PERMITTED,
)


def _lacks(  # noqa: PLR0913, PLR0917 - the request, and what it needs, computed once for all entries
    entry: AllowEntry,
    project: str,
    request: TokenRequest,
    grants: Grants | None,
    needed: Needs | None,
    powers: frozenset[str],
) -> tuple[Lack, ...]:
    """Everything that keeps this entry from permitting the request, in the order of `_STAGES`."""
    lacks: list[Lack] = []
    if project not in entry.projects:
        message = f'project "{project}" isn\'t one that you may use' if project else "you may use no project"
        lacks.append(Lack(Reason.PROJECT_NOT_PERMITTED, message))
    if isinstance(request.access, str):
        if needed is None or request.access not in entry.roles:
            lacks.append(Lack(Reason.ROLE_NOT_PERMITTED, f'role "{request.access}" isn\'t one that you may use here'))
    elif needed is not None and not (entry.grants and needed.ordinary <= entry.grants):
        names = ", ".join(sorted(needed.ordinary - entry.grants)) or "any"
        message = f"spelled-out grants that you may not have: {names} (unset can_* grants count as true)"
        lacks.append(Lack(Reason.GRANT_NOT_PERMITTED, message, {"grants": names.replace(" ", "")}))
    if needed is None or grants is None:
        return tuple(lacks)
    if missing := powers - entry.powers:
        names = ",".join(sorted(missing))
        lacks.append(Lack(Reason.POWER_NOT_PERMITTED, f"powers that you don't have: {names}", {"powers": names}))
    lacks += _shape_lacks(needed, request)
    lacks += _scope_lacks(entry, request, grants)
    return tuple(lacks)


def required_powers(needed: Needs, request: TokenRequest) -> frozenset[str]:
    """The powers that the grants and the request's other fields need together."""
    powers = needed.powers
    if request.kind not in ("", "standard"):
        powers |= {"kind"}
    if request.room_preset:
        powers |= {"room_preset"}
    if request.room_config is not None:
        powers |= request.room_config.powers
    return powers


def _shape_lacks(needed: Needs, request: TokenRequest) -> list[Lack]:
    """Fields that the access needs and the request leaves out, or names and can't use."""
    found: list[Violation] = []
    if needed.room and not request.room:
        found.append(Violation("room", "room_join and room_admin need a room: LiveKit reads an empty one as any room"))
    if needed.identity and not request.identity:
        found.append(Violation("identity", "room_join needs an identity"))
    if request.room and not needed.carries_room:
        found.append(Violation("room", "this access has no video grants, so the token couldn't carry the room"))
    return [Lack(Reason.REQUEST_INVALID, f"{v.field}: {v.description}", violation=v) for v in found]


def _scope_lacks(entry: AllowEntry, request: TokenRequest, grants: Grants) -> list[Lack]:
    """Rooms, identities and lifetimes that the entry doesn't cover."""
    lacks: list[Lack] = []
    if request.room and not entry.rooms.covers(request.room):
        lacks.append(Lack(Reason.ROOM_NOT_PERMITTED, "this room isn't one that you may use for this access"))
    destination = grants.video.destination_room if grants.video else ""
    if destination and not entry.rooms.covers(destination):
        lacks.append(Lack(Reason.ROOM_NOT_PERMITTED, "this destination room isn't one that you may use"))
    if request.identity and not entry.identities.covers(request.identity):
        lacks.append(Lack(Reason.IDENTITY_NOT_PERMITTED, "this identity isn't one that you may issue this access for"))
    longest = entry.max_ttl
    if "long_ttl" not in entry.powers:
        longest = min(longest, AGENT_TTL_LIMIT if grants.video and grants.video.agent else TTL_LIMIT)
    if (entry.default_ttl if request.ttl is None else request.ttl) > longest:
        message = f"the ttl may be at most {longest} s here"
        lacks.append(Lack(Reason.TTL_NOT_PERMITTED, message, {"max_ttl_seconds": str(longest)}))
    return lacks
