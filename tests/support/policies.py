"""Policies for tests of what stands behind them, and generated grants and requests.

A `Grant` comes from `policy.decide` only, in tests as well: `granted` asks a policy that permits everything.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

from hypothesis import strategies as st

from livekit_auth_server.core.grants import (
    GROUPS,
    ORDINARY_GRANTS,
    PARTICIPANT_KINDS,
    POWERS,
    TRACK_SOURCES,
    Grants,
    VideoGrants,
)
from livekit_auth_server.core.policy import (
    AllowEntry,
    CallerPolicy,
    Decision,
    Grant,
    Matcher,
    Policy,
    TokenRequest,
    decide,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CALLER = "spiffe://example.org/web"
YEAR = 365 * 24 * 3600
ANY = Matcher(any=True)
EVERYTHING = AllowEntry(
    name="everything",
    projects=frozenset({"default"}),
    grants=ORDINARY_GRANTS,
    powers=POWERS,
    rooms=ANY,
    identities=ANY,
    max_ttl=YEAR,
)
JOIN = Grants(video=VideoGrants(room_join=True))


def policy_of(*entries: AllowEntry, roles: Mapping[str, Grants] | None = None) -> tuple[Policy, CallerPolicy]:
    """A policy with one caller that has these entries."""
    caller = CallerPolicy(CALLER, entries)
    return Policy("r1", roles or {}, {CALLER: caller}), caller


def decided(request: TokenRequest, *entries: AllowEntry, roles: Mapping[str, Grants] | None = None) -> Decision:
    """What a caller with these entries gets."""
    return decide(*policy_of(*entries, roles=roles), request)


def granted(request: TokenRequest) -> Grant:
    """Leave to mint this request, from a policy that permits everything."""
    decision = decided(request, EVERYTHING)
    assert isinstance(decision, Grant), decision
    return decision


def _values(cls: type[Any], name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values of a grant's field as a request may hold them."""
    if name == "can_publish_sources":
        return st.permutations(TRACK_SOURCES).flatmap(
            lambda order: st.integers(0, len(order)).map(lambda count: tuple(order[:count]))
        )
    if hint is str:
        return st.just("") | st.text(max_size=8)
    if hint == tuple[str, ...]:
        return st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple)
    assert hint in (bool, bool | None), f"{cls.__name__}.{name} is of a type that no strategy covers"
    return st.booleans()


def _groups(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    values = {f.name: _values(cls, f.name, hints[f.name]) for f in fields(cls)}
    silent = {f.name: st.none() for f in fields(cls) if hints[f.name] == bool | None and f.default is None}
    return st.builds(cls, **{name: silent.get(name, st.nothing()) | value for name, value in values.items()})


def all_grants() -> st.SearchStrategy[Grants]:
    """Every combination of groups, and of fields within them."""
    return st.builds(Grants, **{name: st.none() | _groups(cls) for name, cls in GROUPS.items()})


# Any Unicode that protobuf takes, with what JSON, JWTs and terminals trip over made likely.
awkward_text = st.text(
    st.sampled_from('"\\/{}[]:,\x00\x07\n\r\x7f\x85\u2028\u2029\u202e\ufeff\ufffe\uffff\U0010ffff<>&=.éß中😀')
    | st.characters(codec="utf-8"),
    max_size=12,
)


@st.composite
def token_requests(draw: st.DrawFn) -> TokenRequest:
    """Requests that a policy which permits everything permits; without a room_config, which convert makes."""
    grants = draw(all_grants())
    video = grants.video
    join, needs_room = bool(video and video.room_join), bool(video and (video.room_join or video.room_admin))
    filled = awkward_text.filter(bool)
    attributes = draw(st.dictionaries(awkward_text, awkward_text, max_size=3))
    return TokenRequest(
        access=grants,
        room=draw(filled if needs_room else st.just("") | awkward_text) if video else "",
        identity=draw(filled if join else st.just("") | awkward_text),
        name=draw(st.just("") | awkward_text),
        metadata=draw(st.just("") | awkward_text),
        attributes=tuple(sorted(attributes.items())),
        ttl=draw(st.none() | st.integers(1, YEAR)),
        kind=draw(st.sampled_from(("", *PARTICIPANT_KINDS))),
        room_preset=draw(st.just("") | awkward_text),
    )
