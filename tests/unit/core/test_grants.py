"""The claim schema is closed, and every grant is ordinary or a power."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import livekit.api.access_token as livekit_api
import pytest
from google.protobuf.descriptor import FieldDescriptor
from livekit.protocol.models import ParticipantInfo, TrackSource

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import grants_pb2
from livekit_auth.v1.room_config_pb2 import RoomConfig as RoomConfigMessage
from livekit_auth_server.core.grants import (
    CLAIMS,
    GROUPS,
    ORDINARY_GRANTS,
    PARTICIPANT_KINDS,
    POWERS,
    TRACK_SOURCES,
    UNSCOPED_POWERS,
    AgentEndpointGrants,
    AgentThreadGrants,
    CloudAgentGrants,
    Grants,
    RoomConfig,
    VideoGrants,
    camel,
    claims_text,
    needs,
    texts_of,
)
from livekit_auth_server.core.mint import claims
from livekit_auth_server.core.policy import TokenRequest
from support.fakes import NOW
from support.handlers import KEY
from support.livekit import LIVEKIT_GROUPS, differing_kinds, differing_sources, groups_of, lacking_claims
from support.messages import is_map
from support.policies import granted

if TYPE_CHECKING:
    from collections.abc import Iterator


GOLDEN = (Path(__file__).parent / "claims.txt").read_text().splitlines()


def grant_members() -> Iterator[str]:
    for name, cls in GROUPS.items():
        yield CLAIMS[name]
        names = [f.name for f in fields(cls)]
        if name == "video":
            names.insert(names.index("destination_room"), "room")
        yield from (f"{CLAIMS[name]}.{camel(member)}" for member in names)


def message_members(path: str, message: Any) -> Iterator[str]:
    yield path
    for field in sorted(message.fields, key=lambda field: field.number):
        name = f"{path}.{field.camelcase_name}"
        if field.type == FieldDescriptor.TYPE_MESSAGE and not is_map(field):
            yield from message_members(name, field.message_type)
        else:
            yield name


def schema() -> list[str]:
    """Every claim and member that the code can write, in its order."""
    return [
        *("name", "kind", "metadata"),
        *grant_members(),
        *("attributes", "roomPreset"),
        *message_members("roomConfig", RoomConfigMessage.DESCRIPTOR),
        *("sub", "iss", "nbf", "exp"),
    ]


def test_the_claims_that_can_appear_in_a_token_are_these():
    """Fails when a claim comes or goes: read the difference, think, then change claims.txt."""
    assert schema() == GOLDEN


def filled(cls: type[Any]) -> Any:
    """A group with a value in each of its fields."""
    samples = {bool: True, type(None): True, str: "x", tuple: ("camera",)}
    return cls(**{f.name: samples[type(f.default)] for f in fields(cls)})


def members(claim: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in claim.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and name not in ("attributes", "roomConfig"):
            yield from members(value, f"{prefix}{name}.")


def test_a_token_with_everything_in_it_holds_these_claims_in_this_order():
    request = TokenRequest(
        access=Grants(**{name: filled(cls) for name, cls in GROUPS.items()}),
        room="r",
        identity="i",
        name="n",
        metadata="m",
        attributes=(("a", "b"),),
        ttl=600,
        kind="agent",
        room_config=RoomConfig("{}", frozenset()),
        room_preset="p",
    )
    found = list(members(json.loads(claims(granted(request), KEY, NOW))))
    assert found == [path for path in GOLDEN if not path.startswith("roomConfig.")]


def test_no_request_field_is_named_like_a_claim_that_only_the_mint_writes():
    assert {f.name for f in fields(TokenRequest)}.isdisjoint(
        {"sha256", "iss", "nbf", "exp", "sub", "iat", "jti", "aud"}
    )


def test_the_contract_lacks_no_claim_and_no_grant_of_livekit_api():
    """Fails when livekit-api gains one. CONTRIBUTING.md says how to add a grant."""
    assert list(lacking_claims()) == []


@dataclasses.dataclass
class RobotGrants:
    walk: bool = False


FLYING = dataclasses.make_dataclass("VideoGrants", [("can_fly", bool | None, None)], bases=(livekit_api.VideoGrants,))


@pytest.mark.parametrize(
    ("name", "hint", "lacking"),
    [
        ("video", FLYING | None, ["video.canFly"]),
        ("robot_arm", RobotGrants | None, ["robotArm"]),
        ("cloud_agent", RobotGrants | None, ["cloudAgent"]),
        ("kind_details", list[str] | None, ["kindDetails"]),
    ],
)
def test_a_grant_or_claim_that_livekit_api_gains_is_lacking(name, hint, lacking):
    claims = dataclasses.make_dataclass("Claims", [(name, hint, None)], bases=(livekit_api.Claims,))
    assert list(lacking_claims(claims)) == lacking


def test_the_kinds_and_track_sources_are_livekit_protocols():
    """Fails when livekit-protocol gains one."""
    assert differing_kinds() == differing_sources() == set()
    assert set(get_args(livekit_api.AccessToken.ParticipantKind)) <= set(PARTICIPANT_KINDS)
    assert differing_kinds([*ParticipantInfo.Kind.keys(), "ROBOT"]) == {"robot"}
    assert differing_sources([*TrackSource.keys(), "SMELL"]) == {"smell"}


@pytest.mark.parametrize("name", GROUPS)
def test_the_grants_are_livekit_apis_in_its_order(name):
    """The room is the request's."""
    theirs = [f.name for f in fields(LIVEKIT_GROUPS[name]) if (name, f.name) != ("video", "room")]
    assert [f.name for f in fields(GROUPS[name])] == theirs
    assert list(groups_of()) == list(CLAIMS.values())


@pytest.mark.parametrize("name", GROUPS)
def test_every_grant_is_in_the_contract(name):
    group: Any = grants_pb2.Grants.DESCRIPTOR.fields_by_name[name].message_type
    assert set(group.fields_by_name) == {f.name for f in fields(GROUPS[name])}


@pytest.mark.parametrize("name", GROUPS)
def test_the_contract_has_a_flag_as_optional_where_false_and_silent_differ(name):
    group: Any = grants_pb2.Grants.DESCRIPTOR.fields_by_name[name].message_type
    optional = {field.name for field in group.fields if field.has_presence}
    assert optional == {field for field, hint in get_type_hints(GROUPS[name]).items() if hint == bool | None}


@pytest.mark.parametrize("name", GROUPS)
def test_the_defaults_are_livekits(name):
    """What livekit-api leaves out of a token, and what it spells out."""
    theirs = {f.name: f.default for f in fields(LIVEKIT_GROUPS[name])}
    for f in fields(GROUPS[name]):
        assert (f.default or None) == (theirs[f.name] or None)


def test_the_ordinary_grants_are_these():
    assert {
        "room_join",
        "can_publish",
        "can_publish_sources",
        "can_subscribe",
        "can_publish_data",
        "can_update_own_metadata",
    } == ORDINARY_GRANTS


def test_the_contract_names_each_power_beside_the_field_that_needs_it():
    protos = (Path(__file__).parents[3] / "protos/livekit_auth/v1").glob("*.proto")
    text = " ".join(re.sub(r"\s*//", "", path.read_text()) for path in protos)
    assert set(re.findall(r'\bpower\s+"([a-z_]+)"', text)) == POWERS


def test_a_power_is_named_as_the_field_that_needs_it():
    named = (pb.IssueTokenRequest, grants_pb2.Grants, grants_pb2.VideoGrant)
    fields_of_request = {name for message in named for name in message.DESCRIPTOR.fields_by_name}
    parts = {f"room_config_{name}" for name in RoomConfigMessage.DESCRIPTOR.fields_by_name}
    assert POWERS - fields_of_request - parts == {"long_ttl"}


def test_the_powers_that_livekit_doesnt_scope_to_a_room_are_these():
    assert {"room_create", "room_list", "room_record", "ingress_admin", "sip", "agent"} == UNSCOPED_POWERS
    assert UNSCOPED_POWERS < POWERS


QUIET: dict[str, Any] = {"can_publish": False, "can_subscribe": False, "can_publish_data": False}


@pytest.mark.parametrize("name", [f.name for f in fields(VideoGrants)])
def test_a_video_grant_is_a_power_unless_it_is_ordinary(name):
    value = getattr(filled(VideoGrants), name)
    needed = needs(Grants(video=VideoGrants(**{**QUIET, name: value})))
    if name in ORDINARY_GRANTS:
        assert (needed.ordinary, needed.powers) == (frozenset({name}), frozenset())
    else:
        assert (needed.ordinary, needed.powers) == (frozenset(), frozenset({name}))
        assert name in POWERS


@pytest.mark.parametrize("name", [name for name in GROUPS if name != "video"])
def test_every_other_group_is_a_power_even_with_nothing_set_in_it(name):
    for group in (GROUPS[name](), filled(GROUPS[name])):
        needed = needs(Grants(**{name: group}))
        assert (needed.ordinary, needed.powers) == (frozenset(), frozenset({name}))
        assert not needed.carries_room
    assert name in POWERS


@pytest.mark.parametrize("name", ["can_publish", "can_subscribe", "can_publish_data"])
@pytest.mark.parametrize("silence", [True, None])
def test_silence_about_a_grant_that_livekit_takes_for_true_is_a_need(name, silence):
    assert needs(Grants(video=VideoGrants(**{**QUIET, name: silence}))).ordinary == {name}
    assert needs(Grants(video=VideoGrants(**QUIET))).ordinary == frozenset()


@pytest.mark.parametrize("name", ["can_update_own_metadata", "can_subscribe_metrics", "can_manage_agent_session"])
@pytest.mark.parametrize("value", [False, None])
def test_neither_silence_nor_false_is_a_need_where_livekit_takes_silence_for_false(name, value):
    needed = needs(Grants(video=VideoGrants(**{**QUIET, name: value})))
    assert (needed.ordinary, needed.powers) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("grants", "room", "identity"),
    [
        (VideoGrants(room_join=True), True, True),
        (VideoGrants(room_admin=True), True, False),
        (VideoGrants(room_join=True, room_admin=True), True, True),
        (VideoGrants(), False, False),
        (VideoGrants(room_create=True, room_list=True, room_record=True, agent=True), False, False),
    ],
)
def test_joining_needs_a_room_and_an_identity_and_moderating_a_room(grants, room, identity):
    needed = needs(Grants(video=grants))
    assert (needed.room, needed.identity, needed.carries_room) == (room, identity, True)


def test_grants_cant_be_changed_once_they_were_judged():
    video = VideoGrants()
    grants = Grants(video=video)
    with pytest.raises(dataclasses.FrozenInstanceError):
        grants.video = None  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        video.room_join = True  # type: ignore[misc]


@pytest.mark.parametrize("cls", [Grants, *GROUPS.values()])
def test_every_value_of_a_grant_is_immutable(cls):
    """They are keys of caches, and shared between calls."""
    assert all(isinstance(f.default, (bool, str, tuple, type(None))) for f in fields(cls) if f.init)
    hash(cls())


def test_claims_for_a_record_are_json_without_a_room():
    text = claims_text(Grants(video=VideoGrants(room_join=True), agent_endpoint=AgentEndpointGrants(agent_name='"')))
    assert json.loads(text) == {
        "video": {"roomJoin": True, "canPublish": True, "canSubscribe": True, "canPublishData": True},
        "agentEndpoint": {"call": False, "agentName": '"'},
    }
    assert claims_text(Grants()) == "{}"
    assert json.loads(claims_text(Grants(agent_thread=AgentThreadGrants(thread_ids=("a",)))))["agentThread"][
        "threadIds"
    ]
    video = VideoGrants(can_publish=None, can_subscribe_metrics=False)
    assert json.loads(claims_text(Grants(video=video)))["video"] == {
        "canSubscribe": True,
        "canPublishData": True,
        "canSubscribeMetrics": False,
    }
    assert json.loads(claims_text(Grants(cloud_agent=CloudAgentGrants(admin=True))))["agent"]["admin"] is True


@pytest.mark.parametrize("name", [f.name for cls in GROUPS.values() for f in fields(cls)] + list(GROUPS))
def test_a_claims_name_is_livekit_apis(name):
    assert camel(name) == livekit_api.snake_to_lower_camel(name)


def test_a_groups_claim_is_its_name_except_for_cloud_agent():
    assert {name: claim for name, claim in CLAIMS.items() if claim != camel(name)} == {"cloud_agent": "agent"}


# Which grants hold text


@dataclasses.dataclass
class MadeUp:
    """A group as a later LiveKit might have it."""

    flag: bool = False
    silent: bool | None = True
    text: str = ""
    texts: tuple[str, ...] = ()
    listed: tuple[str, ...] = dataclasses.field(default=(), metadata={"values": ("a", "b", "c")})


def test_the_type_of_a_grant_says_whether_it_holds_text():
    assert texts_of(MadeUp) == {"text": 0, "texts": 0, "listed": 3}


def test_a_grant_of_a_type_that_nothing_is_said_about_is_refused():
    numbered = dataclasses.make_dataclass("Numbered", [("most", int, 0)])
    with pytest.raises(TypeError, match=r"Numbered\.most is neither a flag nor text"):
        texts_of(numbered)


@pytest.mark.parametrize(
    ("grants", "free"),
    [
        (Grants(), False),
        (Grants(video=VideoGrants(room_join=True, can_publish_sources=TRACK_SOURCES)), False),
        (Grants(video=VideoGrants(can_publish_sources=(*TRACK_SOURCES, "camera"))), True),
        (Grants(video=VideoGrants(destination_room="x")), True),
        (Grants(agent_endpoint=AgentEndpointGrants(call=True)), False),
        (Grants(agent_endpoint=AgentEndpointGrants(deployment="x")), True),
        (Grants(agent_thread=AgentThreadGrants(thread_ids=("x",))), True),
    ],
)
def test_grants_with_free_text_are_told_from_those_of_flags(grants, free):
    assert grants.holds_text is free
