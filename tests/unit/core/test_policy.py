"""Who may have which token: default deny, one entry for the whole request, and a Grant from nowhere else."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections import UserDict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core import policy as policy_module
from livekit_auth_server.core.grants import (
    GROUPS,
    ORDINARY_GRANTS,
    POWERS,
    AgentEndpointGrants,
    AgentThreadGrants,
    CloudAgentGrants,
    Grants,
    InferenceGrants,
    ObservabilityGrants,
    RoomConfig,
    SipGrants,
    VideoGrants,
)
from livekit_auth_server.core.policy import (
    AllowEntry,
    CallerPolicy,
    Denial,
    Grant,
    Matcher,
    Permission,
    Policy,
    TokenRequest,
    decide,
)
from livekit_auth_server.core.refusal import Reason
from support.examples import examples
from support.policies import ANY, EVERYTHING, JOIN, YEAR, decided, policy_of

QUIET = VideoGrants(can_publish=False, can_subscribe=False, can_publish_data=False)
ROLES = {"guest": JOIN, "host": Grants(video=VideoGrants(room_join=True, room_admin=True))}
GUEST = AllowEntry(
    name="guests",
    projects=frozenset({"default"}),
    roles=frozenset({"guest"}),
    rooms=Matcher(prefixes=("consult-",)),
    identities=Matcher(prefixes=("user-",)),
)
ASKED = TokenRequest(access="guest", room="consult-42", identity="user-7")


def reason(request: TokenRequest, *entries: AllowEntry) -> Reason | None:
    """Why the request is denied; None when it is permitted."""
    decision = decided(request, *entries, roles=ROLES)
    return decision.reason if isinstance(decision, Denial) else None


def test_the_request_that_the_entry_is_for_is_permitted():
    decision = decided(ASKED, GUEST, roles=ROLES)
    assert isinstance(decision, Grant)
    assert (decision.project, decision.entry, decision.ttl, decision.policy_revision) == (
        "default",
        "guests",
        600,
        "r1",
    )
    assert (decision.request, decision.grants) == (ASKED, JOIN)


# Default deny


def test_a_caller_without_entries_gets_nothing():
    assert reason(ASKED) is Reason.PROJECT_NOT_PERMITTED
    assert reason(replace(ASKED, project="default")) is Reason.PROJECT_NOT_PERMITTED


def test_an_entry_without_anything_permits_nothing():
    assert reason(ASKED, AllowEntry("empty", frozenset())) is Reason.PROJECT_NOT_PERMITTED
    assert reason(ASKED, AllowEntry("empty", frozenset({"default"}))) is Reason.ROLE_NOT_PERMITTED
    spelled_out = replace(ASKED, access=Grants())
    assert reason(spelled_out, AllowEntry("empty", frozenset({"default"}))) is Reason.GRANT_NOT_PERMITTED


@pytest.mark.parametrize(
    ("field", "denied"),
    [
        ("projects", Reason.PROJECT_NOT_PERMITTED),
        ("roles", Reason.ROLE_NOT_PERMITTED),
        ("rooms", Reason.ROOM_NOT_PERMITTED),
        ("identities", Reason.IDENTITY_NOT_PERMITTED),
    ],
)
def test_an_empty_list_permits_nothing(field, denied):
    empty: Any = Matcher() if field in ("rooms", "identities") else frozenset()
    assert reason(ASKED, GUEST) is None
    assert reason(ASKED, replace(GUEST, **{field: empty})) is denied


def test_a_caller_that_isnt_in_the_policy_has_no_entry_in_it():
    policy, caller = policy_of(GUEST)
    assert policy.callers.get("spiffe://example.org/other") is None
    assert policy.callers[caller.id] is caller


# One entry for the whole request


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("projects", frozenset({"other"})),
        ("roles", frozenset({"host"})),
        ("rooms", Matcher(exact=frozenset({"lobby"}))),
        ("identities", Matcher(exact=frozenset({"ada"}))),
        ("max_ttl", 30),
    ],
)
def test_entries_never_combine(field, other):
    """Two entries that each lack something that the other has permit nothing together."""
    request = replace(ASKED, project="default", ttl=60)
    lacks_this = replace(GUEST, **{field: other})
    lacks_the_rest = AllowEntry("rest", frozenset({"other"}), frozenset({"host"}), rooms=Matcher(), max_ttl=1)
    lacks_the_rest = replace(lacks_the_rest, **{field: getattr(GUEST, field)})
    assert reason(request, replace(GUEST)) is None
    assert reason(request, lacks_this, lacks_the_rest) is not None
    assert reason(request, lacks_the_rest, lacks_this) is not None


def test_powers_of_two_entries_never_add_up():
    both = replace(ASKED, access=Grants(video=replace(QUIET, room_admin=True, hidden=True)))
    one, other = (replace(EVERYTHING, name=name, powers=frozenset({name})) for name in ("room_admin", "hidden"))
    assert reason(both, one, other) is Reason.POWER_NOT_PERMITTED
    assert reason(both, replace(one, powers=frozenset({"room_admin", "hidden"}))) is None


def test_the_first_entry_that_permits_it_decides():
    second = replace(GUEST, name="second", default_ttl=60)

    def first(*entries: AllowEntry) -> str:
        decision = decided(ASKED, *entries, roles=ROLES)
        assert isinstance(decision, Grant)
        return decision.entry

    assert first(GUEST, second) == "guests"
    assert first(second, GUEST) == "second"
    assert first(replace(GUEST, name="no", rooms=Matcher()), second) == "second"


# Powers


def room_config(*powers: str) -> RoomConfig:
    return RoomConfig("{}", frozenset({"room_config", *powers}))


def with_grant(video: VideoGrants, name: str, value: Any = True) -> VideoGrants:  # noqa: FBT002 - a grant's value
    return replace(video, **{name: value})


def set_value(grant: dataclasses.Field[Any]) -> Any:
    """A value that asks for the grant, by its default's type."""
    return {bool: True, type(None): True, str: "text", tuple: ("text",)}[type(grant.default)]


NEEDS_POWER: dict[str, TokenRequest] = {
    **{
        grant.name: TokenRequest(access=Grants(video=with_grant(QUIET, grant.name, set_value(grant))), room="r")
        for grant in dataclasses.fields(VideoGrants)
        if grant.name not in ORDINARY_GRANTS and grant.name != "destination_room"
    },
    "destination_room": TokenRequest(access=Grants(video=replace(QUIET, destination_room="r2"))),
    "sip": TokenRequest(access=Grants(sip=SipGrants())),
    "inference": TokenRequest(access=Grants(inference=InferenceGrants())),
    "observability": TokenRequest(access=Grants(observability=ObservabilityGrants())),
    "cloud_agent": TokenRequest(access=Grants(cloud_agent=CloudAgentGrants())),
    "agent_endpoint": TokenRequest(access=Grants(agent_endpoint=AgentEndpointGrants())),
    "agent_thread": TokenRequest(access=Grants(agent_thread=AgentThreadGrants())),
    "kind": TokenRequest(access=Grants(video=QUIET), kind="agent"),
    "room_preset": TokenRequest(access=Grants(video=QUIET), room_preset="large"),
    "room_config": TokenRequest(access=Grants(video=QUIET), room_config=room_config()),
    "room_config_egress": TokenRequest(access=Grants(video=QUIET), room_config=room_config("room_config_egress")),
    "room_config_agents": TokenRequest(access=Grants(video=QUIET), room_config=room_config("room_config_agents")),
}


def test_every_power_is_in_the_table():
    assert set(NEEDS_POWER) == POWERS - {"long_ttl"}


@pytest.mark.parametrize("power", sorted(NEEDS_POWER))
def test_what_needs_a_power_is_denied_to_an_entry_that_doesnt_list_it(power):
    decision = decided(NEEDS_POWER[power], replace(EVERYTHING, powers=POWERS - {power}))
    assert isinstance(decision, Denial)
    assert (decision.reason, decision.metadata) == (Reason.POWER_NOT_PERMITTED, {"powers": power})
    assert isinstance(decided(NEEDS_POWER[power], EVERYTHING), Grant)


@pytest.mark.parametrize("power", sorted(NEEDS_POWER))
def test_a_power_alone_is_enough_for_what_needs_only_that(power):
    alone = frozenset({power, "room_config"} if power.startswith("room_config_") else {power})
    assert isinstance(decided(NEEDS_POWER[power], replace(EVERYTHING, powers=alone)), Grant)


@pytest.mark.parametrize("power", sorted(NEEDS_POWER))
def test_a_role_gives_no_power_that_the_entry_doesnt_list(power):
    request = NEEDS_POWER[power]
    entry = replace(EVERYTHING, roles=frozenset({"strong"}), grants=frozenset(), powers=POWERS - {power})
    assert isinstance(request.access, Grants)
    roles = {"strong": request.access}
    decision = decided(replace(request, access="strong"), entry, roles=roles)
    assert isinstance(decision, Denial)
    assert decision.reason is Reason.POWER_NOT_PERMITTED
    assert isinstance(decided(replace(request, access="strong"), replace(entry, powers=POWERS), roles=roles), Grant)


def test_the_missing_powers_are_all_named_in_order():
    request = TokenRequest(
        access=Grants(video=VideoGrants(room_list=True, hidden=True), sip=SipGrants()), kind="sip", room_preset="p"
    )
    decision = decided(request, replace(EVERYTHING, powers=frozenset({"hidden"})))
    assert isinstance(decision, Denial)
    assert decision.metadata == {"powers": "kind,room_list,room_preset,sip"}


def test_the_standard_kind_needs_no_power():
    none = replace(EVERYTHING, powers=frozenset())
    assert reason(TokenRequest(access=Grants(video=QUIET), kind="standard"), none) is None
    assert reason(TokenRequest(access=Grants(video=QUIET), kind="sip"), none) is Reason.POWER_NOT_PERMITTED


# Spelled-out grants


@pytest.mark.parametrize("name", sorted(ORDINARY_GRANTS))
def test_an_ordinary_grant_must_be_listed_to_be_spelled_out(name):
    value = ("camera",) if name == "can_publish_sources" else True
    request = TokenRequest(access=Grants(video=with_grant(QUIET, name, value)), room="r", identity="i")
    decision = decided(request, replace(EVERYTHING, grants=ORDINARY_GRANTS - {name}))
    assert isinstance(decision, Denial)
    assert (decision.reason, decision.metadata) == (Reason.GRANT_NOT_PERMITTED, {"grants": name})
    assert isinstance(decided(request, replace(EVERYTHING, grants=frozenset({name}))), Grant)


@pytest.mark.parametrize("name", ["can_publish", "can_subscribe", "can_publish_data"])
def test_an_unset_can_grant_counts_as_true(name):
    """The claim would say true, and LiveKit takes silence for true."""
    loud = with_grant(VideoGrants(can_publish=False, can_subscribe=False, can_publish_data=False), name)
    for video in (loud, with_grant(loud, name, None)):
        decision = decided(
            TokenRequest(access=Grants(video=video)), replace(EVERYTHING, grants=frozenset({"room_join"}))
        )
        assert isinstance(decision, Denial)
        assert decision.metadata == {"grants": name}


def test_an_entry_that_lists_no_grants_takes_none_spelled_out_whatever_its_powers_are():
    powers_only = replace(EVERYTHING, grants=frozenset(), roles=frozenset({"guest"}))
    for access in (Grants(), Grants(video=QUIET), Grants(sip=SipGrants()), JOIN):
        decision = decided(TokenRequest(access=access, identity="i"), powers_only, roles=ROLES)
        assert isinstance(decision, Denial)
        assert decision.reason is Reason.GRANT_NOT_PERMITTED


def test_an_entry_that_lists_grants_takes_no_role_that_it_doesnt_list():
    assert reason(ASKED, EVERYTHING) is Reason.ROLE_NOT_PERMITTED


def test_a_role_doesnt_need_its_ordinary_grants_listed():
    assert reason(ASKED, replace(GUEST, grants=frozenset())) is None


# What a caller may learn


@pytest.mark.parametrize("project", ["", "default", "other", "nowhere"])
@pytest.mark.parametrize("entries", [(GUEST,), (GUEST, replace(GUEST, name="2", projects=frozenset({"other"}))), ()])
def test_an_unknown_role_and_one_that_isnt_permitted_get_the_same_answer(entries, project):
    request = replace(ASKED, access="host", project=project)
    known = decided(request, *entries, roles=ROLES)
    unknown = decided(request, *entries, roles={"guest": JOIN})
    assert isinstance(known, Denial)
    assert isinstance(unknown, Denial)
    answers = [(d.reason, d.message, dict(d.metadata), d.violation, d.project) for d in (known, unknown)]
    assert answers[0] == answers[1]


def test_an_unknown_project_and_one_that_isnt_permitted_get_the_same_answer():
    """To the policy they are the same thing: it knows a caller's projects only."""
    others = CallerPolicy("spiffe://example.org/other", (replace(GUEST, projects=frozenset({"secret"})),))
    caller = CallerPolicy("spiffe://example.org/web", (GUEST,))
    with_other = Policy("r1", ROLES, {c.id: c for c in (others, caller)})
    alone = Policy("r1", ROLES, {caller.id: caller})
    request = replace(ASKED, project="secret")
    assert decide(with_other, caller, request) == decide(alone, caller, request)


def test_what_the_request_lacks_is_said_only_to_a_caller_that_may_have_the_access():
    incomplete = TokenRequest(access="host")
    assert reason(incomplete, GUEST) is Reason.ROLE_NOT_PERMITTED
    assert reason(incomplete, replace(GUEST, roles=frozenset({"host"}))) is Reason.POWER_NOT_PERMITTED
    may = replace(GUEST, roles=frozenset({"host"}), powers=frozenset({"room_admin"}))
    assert reason(incomplete, may) is Reason.REQUEST_INVALID


# Rooms and identities


@pytest.mark.parametrize(
    ("change", "field"),
    [({"room": ""}, "room"), ({"identity": ""}, "identity"), ({"room": "", "identity": ""}, "room")],
)
def test_a_join_token_without_a_room_or_an_identity_is_refused(change, field):
    """LiveKit reads an empty room in a join token as any room."""
    decision = decided(replace(ASKED, **change), replace(GUEST, rooms=ANY, identities=ANY), roles=ROLES)
    assert isinstance(decision, Denial)
    assert decision.reason is Reason.REQUEST_INVALID
    assert decision.violation is not None
    assert decision.violation.field == field


def test_room_admin_without_a_room_is_refused():
    request = TokenRequest(access=Grants(video=replace(QUIET, room_admin=True)))
    assert reason(request, EVERYTHING) is Reason.REQUEST_INVALID
    assert reason(replace(request, room="r"), EVERYTHING) is None


def test_a_room_without_video_grants_to_carry_it_is_refused():
    request = TokenRequest(access=Grants(sip=SipGrants(call=True)), room="r")
    decision = decided(request, EVERYTHING)
    assert isinstance(decision, Denial)
    assert decision.violation is not None
    assert (decision.reason, decision.violation.field) == (Reason.REQUEST_INVALID, "room")
    assert reason(replace(request, room=""), EVERYTHING) is None


@pytest.mark.parametrize(
    ("matcher", "value", "covered"),
    [
        (Matcher(), "a", False),
        (Matcher(), "", False),
        (ANY, "a", True),
        (ANY, "", True),
        (Matcher(exact=frozenset({"a", "b"})), "b", True),
        (Matcher(exact=frozenset({"a"})), "ab", False),
        (Matcher(exact=frozenset({"a"})), "A", False),
        (Matcher(exact=frozenset({"a"})), "", False),
        (Matcher(prefixes=("ab", "c")), "abc", True),
        (Matcher(prefixes=("ab", "c")), "c", True),
        (Matcher(prefixes=("ab",)), "a", False),
        (Matcher(prefixes=("ab",)), "xab", False),
        (Matcher(prefixes=("Ab",)), "abc", False),
        (Matcher(prefixes=("é",)), "e\u0301", False),  # no normalising
        (Matcher(exact=frozenset({"*"})), "a", False),  # no globs
        (Matcher(prefixes=(".*",)), "abc", False),
        (Matcher(exact=frozenset({"a"}), prefixes=("b",)), "bc", True),
    ],
)
def test_a_matcher_compares_whole_values_or_beginnings_byte_for_byte(matcher, value, covered):
    assert matcher.covers(value) is covered


@pytest.mark.parametrize("room", ["lobby", "consult", "Consult-1", "xconsult-1"])
def test_a_room_outside_the_entry_is_refused(room):
    assert reason(replace(ASKED, room=room), GUEST) is Reason.ROOM_NOT_PERMITTED


@pytest.mark.parametrize("identity", ["ada", "user", "USER-7"])
def test_an_identity_outside_the_entry_is_refused(identity):
    assert reason(replace(ASKED, identity=identity), GUEST) is Reason.IDENTITY_NOT_PERMITTED


def test_rooms_and_identities_apply_even_where_no_grant_needs_them():
    unneeded = TokenRequest(access=Grants(video=QUIET), room="lobby", identity="ada")
    entry = replace(EVERYTHING, rooms=GUEST.rooms, identities=GUEST.identities)
    assert reason(unneeded, entry) is Reason.ROOM_NOT_PERMITTED
    assert reason(replace(unneeded, room="consult-1"), entry) is Reason.IDENTITY_NOT_PERMITTED
    assert reason(replace(unneeded, room="consult-1", identity="user-1"), entry) is None


def test_unset_rooms_and_identities_are_free_where_no_grant_needs_them():
    nothing_named = TokenRequest(access=Grants(video=replace(QUIET, room_list=True)))
    assert reason(nothing_named, replace(EVERYTHING, rooms=Matcher(), identities=Matcher())) is None


def test_the_entry_must_cover_the_destination_room_as_well():
    video = replace(QUIET, room_admin=True, destination_room="consult-2")
    request = TokenRequest(access=Grants(video=video), room="consult-1")
    entry = replace(EVERYTHING, rooms=GUEST.rooms)
    assert reason(request, entry) is None
    elsewhere = replace(request, access=Grants(video=replace(video, destination_room="lobby")))
    assert reason(elsewhere, entry) is Reason.ROOM_NOT_PERMITTED


# Lifetimes


@pytest.mark.parametrize(("asked", "given"), [(None, 120), (1, 1), (300, 300), (301, None), (YEAR, None)])
def test_a_ttl_is_what_was_asked_or_the_entrys_default_and_never_shortened(asked, given):
    decision = decided(replace(ASKED, ttl=asked), replace(GUEST, default_ttl=120, max_ttl=300), roles=ROLES)
    if given is None:
        assert isinstance(decision, Denial)
        assert (decision.reason, decision.metadata) == (Reason.TTL_NOT_PERMITTED, {"max_ttl_seconds": "300"})
    else:
        assert isinstance(decision, Grant)
        assert decision.ttl == given


@pytest.mark.parametrize("agent", [False, True])
@pytest.mark.parametrize("long_ttl", [False, True])
@pytest.mark.parametrize("over", [False, True])
def test_a_long_life_needs_the_power_long_ttl(agent, long_ttl, over):
    """Over an hour, or over ten minutes with agent, whatever the entry's own max is."""
    limit = 600 if agent else 3600
    powers = frozenset({"agent"} | ({"long_ttl"} if long_ttl else set()))
    entry = replace(EVERYTHING, powers=powers, max_ttl=YEAR)
    request = TokenRequest(access=Grants(video=replace(QUIET, agent=agent)), ttl=limit + over)
    decision = decided(request, entry)
    if over and not long_ttl:
        assert isinstance(decision, Denial)
        assert decision.reason is Reason.TTL_NOT_PERMITTED
        assert decision.metadata == {"max_ttl_seconds": str(limit)}
    else:
        assert isinstance(decision, Grant)
        assert decision.ttl == limit + over


def test_a_default_over_the_agent_limit_is_refused_and_not_shortened():
    request = TokenRequest(access=Grants(video=replace(QUIET, agent=True)))
    entry = replace(EVERYTHING, powers=frozenset({"agent"}), default_ttl=1800, max_ttl=3600)
    assert reason(request, entry) is Reason.TTL_NOT_PERMITTED
    assert reason(replace(request, ttl=600), entry) is None


# Projects


def test_the_only_project_need_not_be_named():
    assert decided(ASKED, GUEST, roles=ROLES).project == "default"


def test_one_of_several_projects_must_be_named():
    other = replace(GUEST, name="2", projects=frozenset({"other"}))
    decision = decided(ASKED, GUEST, other, roles=ROLES)
    assert isinstance(decision, Denial)
    assert decision.reason is Reason.PROJECT_REQUIRED
    assert decision.message == "name one of your projects: default, other"
    assert decided(replace(ASKED, project="other"), GUEST, other, roles=ROLES).project == "other"


def test_a_request_without_a_project_is_for_the_default_one():
    other = replace(GUEST, name="2", projects=frozenset({"other"}), default_ttl=60)
    policy, caller = policy_of(GUEST, other, roles=ROLES)
    with_default = replace(caller, default_project="other")
    unnamed, named = (decide(policy, with_default, request) for request in (ASKED, replace(ASKED, project="default")))
    assert isinstance(unnamed, Grant)
    assert isinstance(named, Grant)
    assert (unnamed.project, unnamed.entry, named.project, named.entry) == ("other", "2", "default", "guests")


def test_the_default_project_permits_nothing_by_itself():
    policy, caller = policy_of(GUEST, replace(GUEST, name="2", projects=frozenset({"other"}), roles=frozenset()))
    decision = decide(policy, replace(caller, default_project="other"), ASKED)
    assert isinstance(decision, Denial)
    assert (decision.reason, decision.project) == (Reason.ROLE_NOT_PERMITTED, "other")


@pytest.mark.parametrize("permission", ["verify_webhooks", "verify_tokens", "read_decisions"])
def test_the_default_project_is_for_tokens_alone(permission: Permission):
    both, default = frozenset({"default", "other"}), frozenset({"default"})
    caller = CallerPolicy("dns:a", (replace(GUEST, projects=both),), default_project="other")
    assert caller.project_of("") == "other"
    several, one = (replace(caller, **dict[str, Any]({permission: projects})) for projects in (both, default))
    assert several.project_of("", permission) == ""
    assert (one.project_of("", permission), one.project_of("third", permission)) == ("default", "third")


def test_an_answer_doesnt_grow_with_the_number_of_projects():
    many = replace(GUEST, projects=frozenset(f"project-{n:05}" for n in range(1000)))
    decision = decided(ASKED, many, roles=ROLES)
    assert isinstance(decision, Denial)
    assert decision.message.startswith("name one of your projects: project-00000, project-00001")
    assert len(decision.message) < 400


def test_a_caller_without_a_project_cant_choose_one():
    decision = decided(ASKED, replace(GUEST, projects=frozenset()), roles=ROLES)
    assert isinstance(decision, Denial)
    assert (decision.reason, decision.message) == (Reason.PROJECT_NOT_PERMITTED, "you may use no project")


def test_a_project_that_only_another_entry_has_doesnt_help():
    other = replace(GUEST, name="2", projects=frozenset({"other"}), rooms=Matcher())
    assert reason(replace(ASKED, project="other"), GUEST, other) is Reason.ROOM_NOT_PERMITTED


# The reason that is given


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("closer", "given"),
    [
        (replace(GUEST, roles=frozenset()), Reason.ROLE_NOT_PERMITTED),
        (replace(GUEST, rooms=Matcher()), Reason.ROOM_NOT_PERMITTED),
        (replace(GUEST, identities=Matcher()), Reason.IDENTITY_NOT_PERMITTED),
        (replace(GUEST, max_ttl=1), Reason.TTL_NOT_PERMITTED),
    ],
)
def test_the_reason_is_the_closest_entrys_first_lack(closer, given, reverse):
    far = AllowEntry("far", frozenset({"other"}))
    entries = (far, closer) if not reverse else (closer, far)
    assert reason(replace(ASKED, project="default", ttl=60), *entries) is given


def test_what_each_entry_lacked_is_kept_for_explain():
    other = replace(GUEST, name="other", projects=frozenset({"other"}), rooms=Matcher(), max_ttl=1)
    decision = decided(replace(ASKED, project="default", ttl=60), other, replace(GUEST, max_ttl=30), roles=ROLES)
    assert isinstance(decision, Denial)
    lacked = {name: [lack.reason for lack in lacks] for name, lacks in decision.lacked}
    assert lacked == {
        "other": [Reason.PROJECT_NOT_PERMITTED, Reason.ROOM_NOT_PERMITTED, Reason.TTL_NOT_PERMITTED],
        "guests": [Reason.TTL_NOT_PERMITTED],
    }


def test_every_lack_of_an_entry_comes_in_the_order_of_the_stages():
    request = TokenRequest(
        access=Grants(video=VideoGrants(room_join=True, hidden=True, destination_room="d")), room="x", ttl=YEAR
    )
    decision = decided(replace(request, project="p"), AllowEntry("nothing", frozenset()))
    assert isinstance(decision, Denial)
    [(_, lacks)] = decision.lacked
    stages = [policy_module._STAGES.index(lack.reason) for lack in lacks]
    assert stages == sorted(stages)
    assert len(set(stages)) == 6


# Against the rules written down a second time

NAMES = ("a", "b", "ab")
matchers = st.builds(
    Matcher,
    any=st.booleans(),
    exact=st.frozensets(st.sampled_from(NAMES), max_size=2),
    prefixes=st.lists(st.sampled_from(("a", "b")), max_size=1).map(tuple),
)
small_powers = ("room_admin", "agent", "kind", "destination_room", "long_ttl", "sip", "room_config")
grants = st.builds(
    Grants,
    video=st.none()
    | st.builds(
        VideoGrants,
        room_join=st.booleans(),
        room_admin=st.booleans(),
        agent=st.booleans(),
        destination_room=st.sampled_from(("", "a", "b")),
        can_publish=st.sampled_from((True, False, None)),
        can_subscribe=st.just(False),
        can_publish_data=st.just(False),
    ),
    sip=st.none() | st.just(SipGrants()),
)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """One value more often than not, so that requests come close to what an entry permits."""
    return st.sampled_from([usual] * (len(others) + 2) + list(others))


P, Q = frozenset({"p"}), frozenset({"q"})
entries = st.builds(
    AllowEntry,
    name=st.just("e"),
    projects=mostly(P, frozenset(), Q, P | Q),
    roles=mostly(frozenset({"guest", "host", "gone"}), frozenset(), frozenset({"guest"})),
    grants=mostly(ORDINARY_GRANTS, frozenset(), frozenset({"room_join"}), frozenset({"can_publish", "room_join"})),
    powers=st.just(POWERS) | st.frozensets(st.sampled_from(small_powers)),
    rooms=st.just(ANY) | matchers,
    identities=st.just(ANY) | matchers,
    default_ttl=mostly(60, 700),
    max_ttl=mostly(YEAR, 60, 600, 3600),
)
requests = st.builds(
    TokenRequest,
    access=mostly("guest", "host", "gone", "nowhere") | grants,
    project=mostly("p", "", "q", "r"),
    room=mostly("a", "", "b", "ab"),
    identity=mostly("a", "", "b", "ab"),
    ttl=st.sampled_from((None, 1, 60, 601, 3601)),
    kind=mostly("", "standard", "agent"),
    room_config=mostly(None, room_config()),
)


def naive(roles: dict[str, Grants], entries: list[AllowEntry], request: TokenRequest) -> tuple[Any, ...] | None:
    """The rules of docs and DESIGN, one `if` each: (entry's place, project, ttl) when one permits, else None."""
    all_projects = {name for entry in entries for name in entry.projects}
    project = request.project or (all_projects.copy().pop() if len(all_projects) == 1 else None)
    for place, entry in enumerate(entries):
        if permits(entry, roles, project, request):
            return place, project, request.ttl or entry.default_ttl
    return None


def permits(entry: AllowEntry, roles: dict[str, Grants], project: str | None, request: TokenRequest) -> bool:  # noqa: C901, PLR0911, PLR0912 - on purpose
    if project not in entry.projects:
        return False
    grants = request.access
    if isinstance(grants, str):
        if grants not in roles or grants not in entry.roles:
            return False
        grants = roles[grants]
    elif not entry.grants:
        return False
    powers = set()
    if grants.sip is not None:
        powers.add("sip")
    video = grants.video
    if video is not None:
        for name, default in dataclasses.asdict(VideoGrants()).items():
            value = getattr(video, name)
            if value is None:
                value = default
            if not value:
                continue
            if name not in ORDINARY_GRANTS:
                powers.add(name)
            elif not isinstance(request.access, str) and name not in entry.grants:
                return False
    if request.kind == "agent":
        powers.add("kind")
    if request.room_config is not None:
        powers.add("room_config")
    if not powers <= entry.powers:
        return False
    if video is None and request.room:
        return False
    if video is not None and (video.room_join or video.room_admin) and not request.room:
        return False
    if video is not None and video.room_join and not request.identity:
        return False
    for room in (request.room, video.destination_room if video else ""):
        if room and not matches(entry.rooms, room):
            return False
    if request.identity and not matches(entry.identities, request.identity):
        return False
    ttl = request.ttl or entry.default_ttl
    if ttl > entry.max_ttl:
        return False
    if "long_ttl" in entry.powers:
        return True
    return ttl <= 3600 and not (video is not None and video.agent and ttl > 600)


def matches(matcher: Matcher, value: str) -> bool:
    return matcher.any or value in matcher.exact or any(value[: len(p)] == p for p in matcher.prefixes)


@examples(1500)
@given(
    roles=st.fixed_dictionaries({"guest": st.just(JOIN), "host": grants}),
    entries=st.lists(entries, max_size=3),
    request=requests,
)
def test_decide_permits_exactly_what_the_rules_permit(roles, entries, request):
    entries = [replace(entry, name=str(place)) for place, entry in enumerate(entries)]
    decision = decided(request, *entries, roles=roles)
    expected = naive(roles, entries, request)
    if expected is None:
        assert isinstance(decision, Denial)
    else:
        assert isinstance(decision, Grant)
        place, project, ttl = expected
        assert (decision.entry, decision.project, decision.ttl) == (str(place), project, ttl)
        assert decision.request is request


# A decision's cost


class CountedRoles(UserDict[str, Any]):
    """Roles that count look-ups and, once the policy is made, can't be gone through."""

    looked_up, made = 0, False

    def get(self, key: str, default: Any = None) -> Any:
        self.looked_up += 1
        return super().get(key, default)

    def __iter__(self):
        if self.made:
            raise AssertionError("a decision goes through all roles")
        return super().__iter__()


def test_a_decision_looks_its_role_up_and_goes_through_no_list_of_roles_or_callers():
    roles = CountedRoles()
    roles.data = {"guest": JOIN, **{f"role-{n}": JOIN for n in range(100)}}
    caller = CallerPolicy("spiffe://example.org/web", (GUEST,))
    callers = CountedRoles()
    policy = Policy("r", roles, callers)
    roles.made = callers.made = True
    assert isinstance(decide(policy, caller, ASKED), Grant)
    assert roles.looked_up == 1


def calls_of_a_decision(callers: int, roles: int) -> int:
    """How many functions, Python's and C's, a decision calls in a policy of this size."""
    held = {f"role-{n}": Grants(video=VideoGrants(room_join=True, hidden=bool(n))) for n in range(roles)}
    entry = replace(GUEST, roles=frozenset({"role-0"}))
    policy = Policy(
        "r",
        held,
        {f"spiffe://example.org/{n}": CallerPolicy(f"spiffe://example.org/{n}", (entry,)) for n in range(callers)},
    )
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    request = replace(ASKED, access="role-0")
    sys.setprofile(count)
    try:
        decision = decide(policy, policy.callers["spiffe://example.org/1"], request)
    finally:
        sys.setprofile(None)
    assert isinstance(decision, Grant)
    return calls


def test_a_decision_does_as_much_among_10000_callers_as_among_ten():
    assert calls_of_a_decision(10_000, 1000) == calls_of_a_decision(10, 10)


# A Grant is leave that can't be forged

GRANT: Any = decided(ASKED, GUEST, roles=ROLES)
FIELDS: dict[str, Any] = {f.name: getattr(GRANT, f.name) for f in dataclasses.fields(GRANT)}


@pytest.mark.parametrize("seal", [None, object(), True, "seal"])
def test_a_grant_cant_be_constructed(seal):
    with pytest.raises(TypeError, match=r"policy\.decide only"):
        Grant(**FIELDS, seal=seal)


def test_a_grant_cant_be_constructed_without_a_seal():
    with pytest.raises(TypeError, match="seal"):
        Grant(**FIELDS)


def test_a_grant_cant_be_replaced():
    with pytest.raises(ValueError, match="seal"):
        replace(GRANT, ttl=YEAR)
    with pytest.raises(TypeError, match=r"policy\.decide only"):
        replace(GRANT, ttl=YEAR, seal=None)


def test_a_grant_cant_be_changed():
    for name in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(GRANT, name, None)
    assert not hasattr(GRANT, "__dict__")
    assert not hasattr(GRANT, "seal")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_grant_cant_be_copied_or_pickled(duplicate):
    """A copy could be given another state, and a pickle other bytes."""
    with pytest.raises(TypeError, match=r"policy\.decide only"):
        duplicate(GRANT)


def test_a_grant_cant_be_given_a_state():
    with pytest.raises(TypeError, match=r"policy\.decide only"):
        GRANT.__setstate__([*FIELDS.values()])


def test_a_grant_cant_be_derived():
    with pytest.raises(TypeError, match=r"policy\.decide only"):
        type("Forged", (Grant,), {"__post_init__": lambda *_: None})


def test_what_a_grant_holds_cant_be_changed_either():
    hash((GRANT.request, GRANT.grants))
    assert set(GROUPS) == {f.name for f in dataclasses.fields(GRANT.grants) if f.init}
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRANT.request.room = "lobby"
