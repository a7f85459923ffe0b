"""Protobuf to the core and back: nothing is lost or added, and a room configuration is LiveKit's to the byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol.room import RoomConfiguration

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import grants_pb2
from livekit_auth.v1.grants_pb2 import Grants as GrantsMessage
from livekit_auth.v1.room_config_pb2 import RoomConfig as RoomConfigMessage
from livekit_auth_server.core.grants import (
    CACHED_FLAGS,
    CACHED_TEXTS,
    GROUPS,
    PARTICIPANT_KINDS,
    TRACK_SOURCES,
    Grants,
    VideoGrants,
    claims_template,
    needs,
)
from livekit_auth_server.core.policy import TokenRequest
from livekit_auth_server.service.convert import (
    KIND_NAMES,
    KIND_NUMBERS,
    grants_from_bytes,
    grants_message,
    room_config,
    room_config_message,
    token_request,
)
from support.examples import examples
from support.messages import enum_prefix, field_name, fields_of, is_map, livekit_twin, room_configs
from support.policies import JOIN, all_grants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

# Requests


def test_every_field_of_a_request_arrives():
    request = pb.IssueTokenRequest(
        project="p",
        identity="i",
        name="n",
        metadata="m",
        attributes={"b": "2", "a": "1"},
        role="guest",
        room="r",
        ttl={"seconds": 90},
        kind="PARTICIPANT_KIND_SIP",
        room_config={"empty_timeout": 5},
        room_preset="preset",
        validate_only=True,
        request_reason="ticket 7",
    )
    assert {field.name for field, _ in request.ListFields()} == set(request.DESCRIPTOR.fields_by_name) - {"grants"}
    assert token_request(request) == TokenRequest(
        access="guest",
        project="p",
        identity="i",
        name="n",
        metadata="m",
        attributes=(("a", "1"), ("b", "2")),
        room="r",
        ttl=90,
        kind="sip",
        room_config=room_config(RoomConfigMessage(empty_timeout=5)),
        room_preset="preset",
    )


def test_what_isnt_set_stays_unset():
    assert token_request(pb.IssueTokenRequest(role="guest")) == TokenRequest(access="guest")
    assert token_request(pb.IssueTokenRequest(grants={})) == TokenRequest(access=Grants())


def test_an_unset_ttl_isnt_zero():
    assert token_request(pb.IssueTokenRequest(role="r")).ttl is None
    assert token_request(pb.IssueTokenRequest(role="r", ttl={"seconds": 1})).ttl == 1


def test_attributes_are_in_the_order_of_their_keys_whatever_order_they_came_in():
    names = [f"k{n}" for n in range(50)]
    one, other = (dict.fromkeys(order, "x") for order in (names, reversed(names)))
    both = [
        token_request(pb.IssueTokenRequest(role="r", attributes=attributes)).attributes for attributes in (one, other)
    ]
    assert both[0] == both[1] == tuple((name, "x") for name in sorted(names))


def test_an_empty_room_config_is_a_room_config():
    assert token_request(pb.IssueTokenRequest(role="r", room_config={})).room_config is not None


def test_the_kinds_are_the_cores():
    assert tuple(KIND_NAMES.values()) == PARTICIPANT_KINDS
    assert {name: number for number, name in KIND_NAMES.items()} == KIND_NUMBERS
    assert set(KIND_NAMES) == set(grants_pb2.ParticipantKind.values()) - {0}


def test_the_track_sources_are_the_cores():
    sources = [number for number in grants_pb2.TrackSource.values() if number]
    grants = grants_from_bytes(GrantsMessage(video={"can_publish_sources": sources}).SerializeToString())
    assert grants.video is not None
    assert grants.video.can_publish_sources == TRACK_SOURCES


# Grants


@examples(150)
@given(all_grants())
def test_grants_come_back_as_they_went(grants):
    assert grants_from_bytes(grants_message(grants).SerializeToString()) == grants


def video_with(**changes: Any) -> VideoGrants:
    return VideoGrants(**changes)


def test_an_unset_boolean_with_a_livekit_default_is_true():
    grants = grants_from_bytes(GrantsMessage(video={"room_join": True}).SerializeToString())
    assert grants == JOIN
    assert grants.video is not None
    assert (grants.video.can_publish, grants.video.can_subscribe, grants.video.can_publish_data) == (True, True, True)


OPTIONAL = [name for name, hint in get_type_hints(VideoGrants).items() if hint == bool | None]


@pytest.mark.parametrize("name", sorted({*OPTIONAL} - {"can_publish", "can_subscribe", "can_publish_data"}))
def test_an_unset_boolean_that_livekit_takes_for_false_stays_unset(name):
    grants = grants_from_bytes(GrantsMessage(video={}).SerializeToString())
    assert getattr(grants.video, name) is None
    assert not grants_message(grants).video.HasField(name)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_boolean_that_is_set_to_false_is_false(name):
    grants = grants_from_bytes(GrantsMessage(video={name: False}).SerializeToString())
    assert grants == Grants(video=video_with(**{name: False}))


@pytest.mark.parametrize("name", GROUPS)
def test_an_empty_group_is_a_group(name):
    message = GrantsMessage(**{name: {}})
    assert grants_from_bytes(message.SerializeToString()) == Grants(**{name: GROUPS[name]()})
    assert grants_message(Grants(**{name: GROUPS[name]()})).HasField(name)


def test_what_a_verified_token_is_silent_about_stays_unset():
    message = grants_message(Grants(video=VideoGrants(can_publish=None, can_subscribe=False)))
    assert not message.video.HasField("can_publish")
    assert message.video.HasField("can_subscribe")
    assert message.video.can_publish_data is True


def test_what_callers_spell_out_fills_no_memory():
    """Each cache of grants is bounded well below what the largest grants, each different, would make of it."""
    for number in range(CACHED_TEXTS + 50):
        ids = [f"{number:06}{place:03}{'x' * 247}" for place in range(100)]
        grants = grants_from_bytes(GrantsMessage(agent_thread={"thread_ids": ids}).SerializeToString())
        assert needs(grants)
        assert claims_template(grants)
        assert grants_message(grants)
    caches = [cache.of_texts for cache in (needs, claims_template, grants_message)]
    for cache in (grants_from_bytes, *caches):
        assert cache.cache_info().currsize <= CACHED_TEXTS <= 256


FREE = {str: "x" * 256, tuple[str, ...]: ("x" * 256,) * 100}
"""Free text for each type of grant that can hold some."""


@pytest.mark.parametrize(
    "grants",
    [
        Grants(**{group: cls(**{name: FREE[hint]})})
        for group, cls in GROUPS.items()
        for name, hint in get_type_hints(cls).items()
        if hint in FREE
    ],
)
def test_no_text_is_kept_among_the_many_flags(grants):
    before = needs.of_flags.cache_info().currsize
    needs(grants)
    assert needs.of_flags.cache_info().currsize == before


def test_the_grants_of_a_thousand_roles_are_made_once():
    flags = [name for name, hint in get_type_hints(VideoGrants).items() if hint in (bool, bool | None)]
    roles = [
        Grants(video=video_with(**{name: bool(number >> bit & 1) for bit, name in enumerate(flags)}))
        for number in range(1000)
    ]
    for _ in range(2):
        before = needs.of_flags.cache_info().misses
        for role in roles:
            needs(role)
    assert len(set(roles)) == 1000 < CACHED_FLAGS
    assert needs.of_flags.cache_info().misses == before


# Room configurations


def livekit_claim(message: RoomConfigMessage) -> dict[str, Any]:
    """What livekit-api puts into a token for it; maps in the order of their keys, where protobuf has none."""
    claim = MessageToDict(livekit_twin(message, RoomConfiguration()))
    for holder in (claim, *claim.get("agents", ())):
        for name in holder.keys() & {"tags", "attributes"}:
            holder[name] = dict(sorted(holder[name].items()))
    return claim


@examples(300)
@given(room_configs())
def test_a_room_config_is_livekits_to_the_byte(message):
    assert room_config(message).claim == json.dumps(livekit_claim(message), separators=(",", ":"))


def members(message: Any, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    for field in message.fields:
        yield field
        if field.message_type is not None and not is_map(field) and field.message_type.full_name not in seen:
            yield from members(field.message_type, seen | {field.message_type.full_name})


def way_to(wanted: FieldDescriptor, message: Message) -> Message | None:
    """The message within `message`, made on the way, that holds the field."""
    if wanted.containing_type is message.DESCRIPTOR:
        return message
    for field in fields_of(message):
        if field.message_type is None or is_map(field):
            continue
        if (
            any(member is wanted for member in members(field.message_type))
            or field.message_type is wanted.containing_type
        ):
            inner = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
            inner.SetInParent()
            return way_to(wanted, inner)
    return None


FIELDS = {field_name(f): f for f in members(RoomConfigMessage.DESCRIPTOR)}
ENUM_VALUES = [
    pytest.param(field, value, id=f"{name}={value.name}")
    for name, field in FIELDS.items()
    if field.enum_type is not None
    for value in field.enum_type.values
]


def with_field(field: FieldDescriptor, value: Any) -> RoomConfigMessage:
    message = RoomConfigMessage()
    holder = way_to(field, message)
    assert holder is not None
    setattr(holder, field.name, value)
    return message


@pytest.mark.parametrize(("field", "value"), ENUM_VALUES)
def test_every_enum_value_is_livekits_and_comes_back(field, value):
    """Our unspecified value, and LiveKit's first outside a oneof, say nothing; every other one says itself."""
    message = with_field(field, value.number)
    claim = json.loads(room_config(message).claim)
    assert claim == livekit_claim(message)
    silent = value.number == 0 or (value.number == 1 and not field.containing_oneof)
    assert (value.name.removeprefix(enum_prefix(field)) in json.dumps(claim)) is not silent
    assert room_config_message(claim) == read_back(message)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_livekits_in_its_order(name):
    """So a claim that is written in our order is in LiveKit's."""
    field = FIELDS[name]
    theirs: Any = livekit_message(field).DESCRIPTOR
    assert field.name in theirs.fields_by_name
    assert field.containing_type is not None
    ours = [f.name for f in sorted(field.containing_type.fields, key=lambda f: f.number)]
    order = [f.name for f in sorted(theirs.fields, key=lambda f: f.number) if f.name in ours]
    assert ours == order
    twin = theirs.fields_by_name[field.name]
    assert (twin.type, twin.is_repeated, twin.camelcase_name) == (field.type, field.is_repeated, field.camelcase_name)


def livekit_message(field: FieldDescriptor) -> Message:
    """LiveKit's message that stands where ours that holds this field does."""
    message: Any = RoomConfigMessage()
    way_to(field, message)
    twin: Any = livekit_twin(message, RoomConfiguration())
    while message.DESCRIPTOR is not field.containing_type:
        step, value = message.ListFields()[0]
        inner = getattr(twin, step.name)
        message, twin = (value[0], inner[0]) if step.is_repeated else (value, inner)
    return twin


def test_what_livekit_has_beyond_ours_is_known():
    """Credentials, addresses, and what only a request to the egress service needs. Fails when LiveKit adds a field."""
    beyond = set()
    for field in FIELDS.values():
        theirs = livekit_message(field).DESCRIPTOR
        assert field.containing_type is not None
        names = {f.name for f in theirs.fields} - {f.name for f in field.containing_type.fields}
        beyond |= {f"{theirs.name}.{name}" for name in names}
    storage = {"s3", "gcp", "azure", "aliOSS"}
    assert beyond == {
        *(
            f"{message}.{name}"
            for name in storage
            for message in ("EncodedFileOutput", "SegmentedFileOutput", "ImageOutput")
        ),
        *(f"AutoTrackEgress.{name}" for name in storage),
        *(
            f"RoomCompositeEgressRequest.{name}"
            for name in ("room_name", "custom_base_url", "file", "stream", "segments", "stream_outputs", "webhooks")
        ),
    }


@pytest.mark.parametrize(
    ("config", "powers"),
    [
        ({}, {"room_config"}),
        ({"empty_timeout": 1, "tags": {"a": "b"}, "metadata": "m"}, {"room_config"}),
        ({"egress": {}}, {"room_config", "room_config_egress"}),
        ({"egress": {"tracks": {}}}, {"room_config", "room_config_egress"}),
        ({"agents": [{}]}, {"room_config", "room_config_agents"}),
        ({"name": "large"}, {"room_config", "room_preset"}),
        (
            {"name": "n", "agents": [{}], "egress": {}},
            {"room_config", "room_config_egress", "room_config_agents", "room_preset"},
        ),
    ],
)
def test_each_part_of_a_room_config_needs_its_power(config, powers):
    assert room_config(RoomConfigMessage(**config)).powers == powers


# Back: the room configuration of a verified token


def read_back(message: RoomConfigMessage) -> RoomConfigMessage:
    """The message as it comes back: values that LiveKit leaves out of JSON are unset."""
    back = RoomConfigMessage()
    _read_back(message, back)
    return back


def _read_back(message: Message, back: Message) -> None:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_ENUM:
            if value > 1 or (value == 1 and field.containing_oneof):
                setattr(back, field.name, value)
        elif is_map(field):
            getattr(back, field.name).update(value)
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(back, field.name, value)
        elif field.is_repeated:
            for item in value:
                _read_back(item, getattr(back, field.name).add())
        else:
            getattr(back, field.name).SetInParent()
            _read_back(value, getattr(back, field.name))


@examples(200)
@given(room_configs(), st.booleans())
def test_a_room_config_comes_back_from_a_token(message, snake_case):
    """The Kotlin SDK writes snake_case names."""
    twin = livekit_twin(message, RoomConfiguration())
    claim = MessageToDict(twin, preserving_proto_field_name=snake_case)
    assert room_config_message(claim) == read_back(message)
    assert livekit_twin(room_config_message(claim), RoomConfiguration()) == twin


CREDENTIALS = {
    "name": "large",
    "egress": {
        "room": {
            "roomName": "MARKER-room",
            "customBaseUrl": "https://MARKER",
            "fileOutputs": [
                {"filepath": "a", "s3": {"accessKey": "MARKER-id", "secret": "MARKER-secret", "bucket": "b"}},
                {"filepath": "b", "gcp": {"credentials": "MARKER"}},
                {"filepath": "c", "azure": {"accountKey": "MARKER"}},
                {"filepath": "d", "aliOSS": {"secret": "MARKER"}},
            ],
            "segmentOutputs": [{"playlistName": "p", "s3": {"secret": "MARKER", "proxy": {"password": "MARKER"}}}],
            "imageOutputs": [{"filenamePrefix": "i", "s3": {"sessionToken": "MARKER"}}],
            "streamOutputs": [{"urls": ["rtmp://example.org/MARKER"]}],
            "webhooks": [{"url": "https://MARKER", "signingKey": "MARKER"}],
        },
        "tracks": {"filepath": "t", "s3": {"secret": "MARKER"}},
    },
}


def test_credentials_and_addresses_of_a_foreign_token_are_left_out():
    assert ParseDict(CREDENTIALS, RoomConfiguration()).ByteSize()  # it is what LiveKit takes
    assert room_config_message(CREDENTIALS) == RoomConfigMessage(
        name="large",
        egress={
            "room": {
                "file_outputs": [{"filepath": name} for name in "abcd"],
                "segment_outputs": [{"playlist_name": "p"}],
                "image_outputs": [{"filename_prefix": "i"}],
            },
            "tracks": {"filepath": "t"},
        },
    )
    assert "MARKER" not in str(room_config_message(CREDENTIALS))


@pytest.mark.parametrize(
    "claim",
    [
        {"name": 7, "emptyTimeout": "x", "egress": "x", "agents": "x", "tags": "x", "syncStreams": "x"},
        {"name": None, "egress": None, "agents": None, "tags": None},
        {"emptyTimeout": -1, "maxParticipants": 2**40, "departureTimeout": 1.5, "minPlayoutDelay": []},
        {"egress": []},
        {"agents": {}, "tags": []},
        {"agents": ["x"]},
        {"agents": [{"agentName": "a"}, "x"]},
        {"tags": {"a": 1}},
        {"tags": {"a": "b", "c": 1}},
        {"metadata": "\ud800"},
        {"unknown": {"deep": ["x"]}},
    ],
    ids=str,
)
def test_a_member_of_another_type_than_livekits_is_left_out_whole(claim):
    assert room_config_message({**claim, "maxPlayoutDelay": 5}) == RoomConfigMessage(max_playout_delay=5)


@pytest.mark.parametrize("value", ["NO_SUCH_PRESET", 3, [], {}, None, True, ""])
def test_an_enum_value_that_this_contract_doesnt_have_is_left_out(value):
    claim = {"egress": {"room": {"preset": value, "audioMixing": value, "layout": "grid"}}}
    assert room_config_message(claim) == RoomConfigMessage(egress={"room": {"layout": "grid"}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(f.camelcase_name for f in FIELDS.values())), inner, max_size=5)
    ),
    max_leaves=15,
)


@examples(200)
@given(st.dictionaries(st.sampled_from([f.camelcase_name for f in RoomConfigMessage.DESCRIPTOR.fields]), json_values))
def test_no_claim_of_a_foreign_token_breaks_the_answer(claim):
    room_config_message(claim).SerializeToString()
