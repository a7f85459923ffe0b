"""What a token allows, and the claims that say so.

Guarantees: the schema is closed. A claim that isn't written here can't appear in a token that this service mints, and
nothing that a request holds reaches "sha256", "iss", "nbf", "exp" or "sub" except through `mint`.

The classes mirror the grants of livekit-api 1.2 (livekit/api/access_token.py) field for field and in its order, so that
a minted token equals livekit-api's to the byte. A grant is either *ordinary* or a *power* (see `Needs`). Its type says
what it may hold: a flag (bool, or bool | None where false and silent differ), a text (str), or texts (tuple[str, ...]),
which are free unless the field's metadata lists their `values`. Its default is what LiveKit reads into silence, where
None means false.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import lru_cache, update_wrapper
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from dataclasses import Field

ORDINARY_GRANTS = frozenset(
    {
        "room_join",
        "can_publish",
        "can_publish_sources",
        "can_subscribe",
        "can_publish_data",
        "can_update_own_metadata",
    }
)

# How many different grants a cache keeps. Of grants that are flags only, as many as a large policy has roles; of grants
# with text, few, since a caller could fill the cache with spelled-out grants of 25 KiB, each different.
CACHED_FLAGS, CACHED_TEXTS = 1024, 128

TRACK_SOURCES = ("camera", "microphone", "screen_share", "screen_share_audio")
PARTICIPANT_KINDS = ("standard", "egress", "ingress", "sip", "agent", "connector", "bridge")


@dataclass(frozen=True, slots=True)
class VideoGrants:
    """Grants on rooms and within one. The room itself belongs to the request; see `claims_template`.

    None means that the token is silent about a grant. Where LiveKit takes silence for true, livekit-api always writes
    the grant, so there only a verified token is silent.
    """

    room_create: bool = False
    room_list: bool = False
    room_record: bool = False
    room_admin: bool = False
    room_join: bool = False
    destination_room: str = ""
    can_publish: bool | None = True
    can_subscribe: bool | None = True
    can_publish_data: bool | None = True
    can_publish_sources: tuple[str, ...] = field(default=(), metadata={"values": TRACK_SOURCES})
    can_update_own_metadata: bool | None = None
    ingress_admin: bool = False
    hidden: bool = False
    recorder: bool = False
    agent: bool = False
    can_manage_agent_session: bool | None = None
    can_subscribe_metrics: bool | None = None


@dataclass(frozen=True, slots=True)
class SipGrants:
    """Grants on telephony: `admin` manages trunks and dispatch rules, `call` makes outbound calls."""

    admin: bool = False
    call: bool = False


@dataclass(frozen=True, slots=True)
class InferenceGrants:
    """Grants on LiveKit Inference."""

    perform: bool = False


@dataclass(frozen=True, slots=True)
class ObservabilityGrants:
    """Grants on observability data."""

    write: bool = False


@dataclass(frozen=True, slots=True)
class CloudAgentGrants:
    """Grants on LiveKit Cloud's agents."""

    admin: bool = False
    simulation_admin: bool = False
    database_admin: bool = False
    dispatch_admin: bool = False


@dataclass(frozen=True, slots=True)
class AgentEndpointGrants:
    """Grants on an agent's HTTP endpoints; empty names mean every agent and every deployment."""

    call: bool = False
    agent_name: str = ""
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class AgentThreadGrants:
    """Grants on an agent's threads."""

    all: bool = False
    scope: str = ""
    thread_ids: tuple[str, ...] = ()
    list: bool = False
    create: bool = False
    write: bool = False
    read: bool = False
    delete: bool = False


@dataclass(frozen=True, slots=True)
class Grants:
    """All grants of a token, in the order of livekit-api's claims. None puts no claim in the token.

    A group other than `video` is a power as a whole, named as the group. The group's metadata names its `claim` if that
    isn't its name in camel case.
    """

    video: VideoGrants | None = None
    sip: SipGrants | None = None
    inference: InferenceGrants | None = None
    observability: ObservabilityGrants | None = None
    cloud_agent: CloudAgentGrants | None = field(default=None, metadata={"claim": "agent"})
    agent_endpoint: AgentEndpointGrants | None = None
    agent_thread: AgentThreadGrants | None = None
    holds_text: bool = field(init=False, compare=False, repr=False)
    """Whether any grant holds free text, of which there are as many as callers care to write."""

    def __post_init__(self) -> None:
        # Found out once: it is asked several times for each token.
        texts = any(
            len(getattr(group, text)) > few
            for name, texts in _TEXTS.items()
            if (group := getattr(self, name)) is not None
            for text, few in texts.items()
        )
        object.__setattr__(self, "holds_text", texts)


def camel(name: str) -> str:
    """The claim's name: livekit-api's snake_to_lower_camel."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_HINTS = get_type_hints(Grants)
GROUPS: dict[str, type[Any]] = {f.name: get_args(_HINTS[f.name])[0] for f in fields(Grants) if f.init}
"""The class of each group, in the order of Grants."""

CLAIMS: dict[str, str] = {f.name: f.metadata.get("claim", camel(f.name)) for f in fields(Grants) if f.init}
"""The name of each group's claim."""


def texts_of(group: type[Any]) -> dict[str, int]:
    """The grants of a group that hold text, and how many values each may have without being free text.

    Raises TypeError for a grant of another type than the module's docstring names.
    """
    found = {}
    for f, hint in ((f, get_type_hints(group)[f.name]) for f in fields(group)):
        if hint in (str, tuple[str, ...]):
            found[f.name] = len(f.metadata.get("values", ())) if hint is not str else 0
        elif hint not in (bool, bool | None):
            raise TypeError(f"{group.__name__}.{f.name} is neither a flag nor text")
    return found


_TEXTS = {name: texts_of(cls) for name, cls in GROUPS.items()}

# Every grant or request field that an allow entry must list by name, whatever its roles say. Derived where it can be,
# so that a new grant is a power until somebody makes it ordinary.
POWERS = frozenset(
    {f.name for f in fields(VideoGrants)} - ORDINARY_GRANTS
    | GROUPS.keys() - {"video"}
    | {"kind", "room_preset", "room_config", "room_config_egress", "room_config_agents", "long_ttl"}
)

# Powers that LiveKit doesn't scope to a room: livekit-server pkg/service (room creation also deletes, egress, ingress
# and SIP take any room, and a worker with "agent" reaches any room through job simulation).
UNSCOPED_POWERS = frozenset({"room_create", "room_list", "room_record", "ingress_admin", "sip", "agent"})


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """A room configuration as the claim "roomConfig" holds it: compact JSON, and the powers that it needs."""

    claim: str
    powers: frozenset[str]


T = TypeVar("T")


_TRI_STATE = frozenset(name for name, hint in get_type_hints(VideoGrants).items() if hint == bool | None)
"""Flags whose false is written into the token, as livekit-api does with whatever isn't None."""


class remembered(Generic[T]):  # noqa: N801 - a decorator
    """Caches what a function makes of grants. Grants that hold text have a cache of their own."""

    def __init__(self, function: Callable[[Grants], T]) -> None:
        update_wrapper(self, function)
        self.of_flags, self.of_texts = lru_cache(CACHED_FLAGS)(function), lru_cache(CACHED_TEXTS)(function)

    def __call__(self, grants: Grants) -> T:
        """The function's value, computed or cached."""
        return (self.of_texts if grants.holds_text else self.of_flags)(grants)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a policy entry must give for some grants, and what the request must name for them to make sense."""

    ordinary: frozenset[str]
    powers: frozenset[str]
    room: bool
    identity: bool
    carries_room: bool


def _permits(f: Field[Any], value: object) -> bool:
    """Whether LiveKit takes this value of a grant for a permission."""
    return bool(f.default if value is None else value)


@remembered
def needs(grants: Grants) -> Needs:
    """What these grants need. A join token has to name its room: LiveKit reads an empty one as any room."""
    video = grants.video
    named = {f.name for f in fields(video) if _permits(f, getattr(video, f.name))} if video else set()
    groups = {name for name in GROUPS if name != "video" and getattr(grants, name) is not None}
    return Needs(
        ordinary=frozenset(named & ORDINARY_GRANTS),
        powers=frozenset(named - ORDINARY_GRANTS | groups),
        room=bool(video and (video.room_join or video.room_admin)),
        identity=bool(video and video.room_join),
        carries_room=video is not None,
    )


@remembered
def claims_template(grants: Grants) -> tuple[str, str, str]:
    """The grants' claims as compact JSON members, cut where a video grant's room goes.

    Returns (before, between, after): `before` up to the room, `between` the rest of "video", both empty without video
    grants, and `after` the other groups. Every part that isn't empty ends in a comma.
    """
    before = between = ""
    if grants.video is not None:
        members = list(_members(grants.video))
        names = [f.name for f in fields(VideoGrants)]
        cut = names.index("destination_room")  # livekit-api puts "room" just before it
        head = [text for name, text in members if names.index(name) < cut]
        tail = [text for name, text in members if names.index(name) >= cut]
        before = '"video":{' + "".join(f"{text}," for text in head)
        between = ",".join(tail) + "},"
    after = "".join(
        f'"{CLAIMS[name]}":{{{",".join(text for _, text in _members(group))}}},'
        for name in GROUPS
        if name != "video" and (group := getattr(grants, name)) is not None
    )
    return before, between, after


def _members(group: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any of GROUPS
    """A group's members as `(field name, '"claim":value')`, with what livekit-api leaves out left out."""
    for f in fields(group):
        value = getattr(group, f.name)
        if value is None or value in ("", ()):
            continue
        if value is False and isinstance(group, VideoGrants) and f.name not in _TRI_STATE:
            continue  # livekit-api's default for these is None, which it drops
        yield f.name, f'"{camel(f.name)}":{json.dumps(value, separators=(",", ":"))}'


def room_member(room: str) -> str:
    """The member that goes into a video grant for this room; empty for no room."""
    return f'"room":{encode_basestring_ascii(room)},' if room else ""


def claims_text(grants: Grants) -> str:
    """The grants' claims without a room, as compact JSON: for records and people."""
    return "{" + "".join(claims_template(grants)).removesuffix(",") + "}"
