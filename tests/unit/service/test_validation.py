"""The field rules: what protovalidate makes of the annotations in the proto, and each limit at its edge."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import assume, event, given
from hypothesis import strategies as st

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.grants_pb2 import TrackSource
from livekit_auth_server.service.validation import MAX_BATCH, MAX_TTL, REQUIRED, RULES, violations
from support.examples import examples
from support.messages import enum_of, field_name, is_map, messages
from support.oracle import oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

ROOT = Path(__file__).parents[3]
KIB = 1024
SERVICE = pb.DESCRIPTOR.services_by_name["AuthService"]
UNKNOWN_KIND: Any = 9
REQUESTS = tuple(getattr(pb, method.input_type.name) for method in SERVICE.methods)
JUDGED = tuple(cls for cls in REQUESTS if cls is not pb.BatchIssueTokensRequest)  # its entries are judged one by one


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """The contract with its annotations."""
    image = tmp_path_factory.mktemp("image") / "contract.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", ROOT, "-o", image], check=True, cwd=ROOT)
    return image


@pytest.fixture(scope="session")
def annotated(image):
    """What the annotations say of a message: the paths at which it breaks them."""
    with oracle([sys.executable, ROOT / "tests/support/protovalidate_oracle.py", image]) as ask:

        def broken(message: Message) -> set[str]:
            data = base64.b64encode(message.SerializeToString()).decode("ascii")
            return {
                re.sub(r"\[\d+\]$", "", path)
                for path in ask({"type": message.DESCRIPTOR.full_name, "data": data})["broken"]
            }

        yield broken


def paths(message: Message) -> set[str]:
    """The paths at which a message breaks our rules."""
    return {violation.field for violation in violations(message)}


# Every field has its rule


def reachable(message: Descriptor, seen: set[str] | None = None) -> Iterator[Descriptor]:
    """The message and every message of the contract that a field of it can hold."""
    seen = set() if seen is None else seen
    if message.full_name in seen or message.file.package != "livekit_auth.v1":
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None and not is_map(field):
            yield from reachable(field.message_type, seen)


FIELDS = {field_name(field): field for cls in REQUESTS for m in reachable(cls.DESCRIPTOR) for field in m.fields}
WITHOUT_A_RULE = {
    "BatchIssueTokensRequest.requests",  # 1 to 500 entries: service.batches, since each entry is judged for itself
}


def needs_a_rule(field: FieldDescriptor) -> bool:
    if field.is_repeated:  # maps are repeated, too
        return True
    return field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def test_every_string_bytes_map_and_list_has_a_rule():
    """Single enums are judged by the one rule for all of them; see the differential test."""
    assert {name for name, field in FIELDS.items() if needs_a_rule(field)} - set(RULES) == WITHOUT_A_RULE


def test_no_rule_is_for_a_field_that_doesnt_exist():
    assert set(RULES) <= set(FIELDS)
    for name, required in REQUIRED.items():
        assert {f"{name}.{field}" for field in required} <= set(FIELDS)


def test_the_required_fields_are_those_of_the_contract(image):
    """Every field of a request says which it is (AIP-203). That of a batch is for service.batches."""
    behaviors = {
        f"{message.name}.{field.name}": behavior_of(field)
        for file in FileDescriptorSet.FromString(image.read_bytes()).file
        if file.package == "livekit_auth.v1"
        for message in file.message_type
        for field in message.field
    }
    required = {f"{name}.{field}" for name, fields in REQUIRED.items() for field in fields}
    said = {name for name, behavior in behaviors.items() if behavior == REQUIRED_BEHAVIOR}
    assert said == required | {"BatchIssueTokensRequest.requests"}
    of_requests = {field_name(field) for cls in REQUESTS for field in cls.DESCRIPTOR.fields}
    assert {name for name in of_requests if behaviors[name] not in (REQUIRED_BEHAVIOR, OPTIONAL_BEHAVIOR)} == set()


# google.api.field_behavior, field 1052 of FieldOptions: one varint, or several packed
REQUIRED_BEHAVIOR, OPTIONAL_BEHAVIOR = b"\x02", b"\x01"


def behavior_of(field: FieldDescriptorProto) -> bytes | None:
    unknown = UnknownFieldSet(field.options)
    return next((bytes(option.data) for option in unknown if option.field_number == 1052), None)


def test_messages_of_one_name_are_one_message():
    """A rule is found by the message's short name."""
    every = {m.full_name for cls in REQUESTS for m in reachable(cls.DESCRIPTOR)}
    assert len({name.rsplit(".", 1)[1] for name in every}) == len(every)


def test_every_enum_field_refuses_values_that_it_doesnt_have():
    for field in FIELDS.values():
        if field.type != FieldDescriptor.TYPE_ENUM:
            continue
        for undefined in (-1, 99, 2**31 - 1):
            assert undefined not in enum_of(field).values_by_number
            message = containing(field, undefined)
            assert [path.rsplit(".", 1)[-1] for path in paths(message)] == [field.name]


# Ways to a field: a request that holds it, and nothing else that would be at fault


def ways(cls: type[Message]) -> dict[str, list[FieldDescriptor]]:
    found: dict[str, list[FieldDescriptor]] = {}

    def walk(message: Any, way: list[FieldDescriptor]) -> None:
        for field in message.fields:
            if found.setdefault(field_name(field), [*way, field]) != [*way, field]:
                continue
            if (
                field.message_type is not None
                and not is_map(field)
                and field.message_type.file.package == "livekit_auth.v1"
            ):
                walk(field.message_type, [*way, field])

    walk(cls.DESCRIPTOR, [])
    return found


WAYS = {cls: ways(cls) for cls in JUDGED}
HELD_BY = {name: cls for cls, found in WAYS.items() for name in found}


def valid(cls: type[Message]) -> Message:
    """A request that keeps every rule: an empty one, unless the contract requires fields."""
    return {
        "IssueTokenRequest": pb.IssueTokenRequest(role="guest"),
        "VerifyWebhookRequest": pb.VerifyWebhookRequest(body=b"{}", authorization="a.b.c"),
        "AckWebhookRequest": pb.AckWebhookRequest(project="default", event_id="EV_1", body_sha256=bytes(32)),
        "VerifyTokenRequest": pb.VerifyTokenRequest(token="a.b.c"),
        "GetDecisionRequest": pb.GetDecisionRequest(decision_id="d1"),
    }.get(cls.DESCRIPTOR.name, cls())


def containing(field: FieldDescriptor, value: Any) -> Message:
    """A request with this value in this field, wherever the field is."""
    name = field_name(field)
    message = valid(HELD_BY[name])
    target: Any = message
    for step in WAYS[HELD_BY[name]][name][:-1]:
        target = getattr(target, step.name).add() if step.is_repeated else getattr(target, step.name)
        target.SetInParent()
    if is_map(field):
        getattr(target, field.name).update(value)
    elif field.is_repeated and field.message_type is not None:
        for _ in range(value):
            getattr(target, field.name).add()
    elif field.is_repeated:
        getattr(target, field.name).extend(value if isinstance(value, list) else [value])
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)
    return message


@pytest.mark.parametrize("cls", JUDGED, ids=lambda cls: cls.DESCRIPTOR.name)
def test_the_least_that_a_request_needs(annotated, cls):
    assert paths(valid(cls)) == annotated(valid(cls)) == set()
    assert (
        paths(cls())
        == annotated(cls())
        == set(REQUIRED.get(cls.DESCRIPTOR.name, ())) | ({"access"} if cls is pb.IssueTokenRequest else set())
    )


# Against protovalidate, at every edge

SIZES = (0, 1, 31, 32, 33, 63, 64, 255, 256, 257, 1024, 1025, 8192, 8193, 64 * KIB, 64 * KIB + 1)
LARGE = {"IssueTokenRequest.metadata": 512 * KIB, "VerifyTokenRequest.token": 3 * KIB * KIB}
CHARACTERS = [
    *("\x00", "\t", "\n", "\x1f", " ", "\x7f", "\x80", "\x9f", "\xa0", "\xad"),
    *("\u061b", "\u061c", "\u061d", "\u200b", "\u200d", "\u200e", "\u200f", "\u2010", "\u2028", "\u2029"),
    *("\u202a", "\u202e", "\u202f", "\u2065", "\u2066", "\u2069", "\u206a", "\ufdcf", "\ufdd0", "\ufdef", "\ufdf0"),
    *("\ufeff", "\ufffd", *(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFD, 0xFFFE, 0xFFFF))),
    *(
        "A",
        "_",
        "-",
        "*",
        "a-",
        "-a",
        "a_b",
        "_a",
        "a_",
        "a.b",
        "é",
        "e\u0301",
        "\U0001f600",
        "a\n",
        "\ue000",
        "\U0010fffd",
    ),
]
NUMBERS = [-1, 0, 1, 48, 49, 100, 101, 240, 241, 600, 601, 8192, 8193]
NUMBERS += [100_000, 100_001, 384_000, 384_001, 1_000_000, 1_000_001, 2**31 - 1]


def edges(field: FieldDescriptor) -> Iterator[Any]:
    """Values around every limit that the contract has anywhere, for a field of this type."""
    name = field_name(field)
    if is_map(field):
        yield from ({str(n): "x" for n in range(count)} for count in (0, 1, 64, 65))
    elif field.is_repeated and field.message_type is not None:
        yield from (0, 1, 8, 9, 16, 17)
    elif field.type == FieldDescriptor.TYPE_STRING:
        texts = ["x" * size for size in SIZES] + ["é" * 128, "é" * 128 + "x", "\U0001f600" * 64, *CHARACTERS]
        if name in LARGE:
            texts += ["x" * LARGE[name], "x" * (LARGE[name] + 1), "é" * (LARGE[name] // 2) + "x"]
        yield from [[text] for text in texts] if field.is_repeated else texts
        if field.is_repeated:
            yield from ([], ["x"] * 100, ["x"] * 101, ["x", ""])
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from (b"\xff" * size for size in SIZES)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        numbers = [*enum_of(field).values_by_number, -1, 99]
        yield from [[1, 2], [1, 1], [0], [99], [1, 99]] if field.is_repeated else numbers
    elif field.type == FieldDescriptor.TYPE_INT32:
        yield from NUMBERS
    elif field.type == FieldDescriptor.TYPE_DOUBLE:
        yield from (-0.0, 0.0, 1e-300, 600.0, 600.0001, -1e-300, float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("name", sorted(set(HELD_BY) - {"IssueTokenRequest.attributes"}))
def test_a_field_is_valid_exactly_when_its_annotation_says_so(annotated, name):
    for value in edges(FIELDS[name]):
        message = containing(FIELDS[name], value)
        assert paths(message) == annotated(message), f"{type(value).__name__} of {str(value)[:20]!r}"


DURATIONS = [
    *(
        (0, 0),
        (1, 0),
        (-1, 0),
        (60, 0),
        (MAX_TTL, 0),
        (MAX_TTL + 1, 0),
        (2**40, 0),
        (-(2**40), 0),
        (2**63 - 1, 0),
        (-(2**63), 0),
    ),
    *((1, 1), (0, 1), (0, 999_999_999), (MAX_TTL, 1), (59, 500_000_000), (-1, -1), (0, -1)),
]


@pytest.mark.parametrize(("whole", "nanos"), DURATIONS)
def test_a_ttl_is_whole_seconds_from_1_to_a_year(annotated, whole, nanos):
    message: Any = valid(pb.IssueTokenRequest)
    message.ttl.seconds, message.ttl.nanos = whole, nanos
    permitted = nanos == 0 and 1 <= whole <= MAX_TTL
    assert (paths(message) == set()) is permitted
    assert (annotated(message) == set()) is permitted


@pytest.mark.parametrize(("whole", "nanos"), [(1, 10**9), (0, 10**9), (2, -(10**9)), (1, -1), (-1, 1), (0, 2**31 - 1)])
def test_a_ttl_that_protobuf_doesnt_allow_is_refused_even_if_its_sum_is_whole(whole, nanos):
    """protovalidate adds the parts up first: the one difference beside those that the contract names."""
    message: Any = valid(pb.IssueTokenRequest)
    message.ttl.seconds, message.ttl.nanos = whole, nanos
    assert paths(message) == {"ttl"}


# Against protovalidate, everywhere at once


def any_values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.containing_type is not None and field.containing_type.full_name == "google.protobuf.Duration":
        whole = st.integers(-2, 2) | st.integers(MAX_TTL - 1, MAX_TTL + 1)
        return whole if field.name == "seconds" else st.sampled_from([0, 0, 0, 1])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_UINT32:
        return st.integers(0, 2**32 - 1)
    values = [item for value in edges(field) for item in (value if field.is_repeated else [value])]
    small = [value for value in values if not isinstance(value, (str, bytes)) or len(value) < 2000]
    return st.sampled_from(small)


@examples(250)
@given(st.sampled_from(JUDGED).flatmap(lambda cls: messages(cls, any_values)))
def test_a_request_is_valid_exactly_where_the_annotations_say_so(annotated, message):
    theirs = annotated(message)
    assume("?" not in theirs)
    assert paths(message) == theirs
    event("valid" if not theirs else "invalid")


# Limits that no annotation can state


@pytest.mark.parametrize(
    ("attributes", "permitted"),
    [
        ({"k": "x" * (64 * KIB - 1)}, True),
        ({"k": "x" * 64 * KIB}, False),
        ({"k": "é" * (32 * KIB - 1)}, True),
        ({"k": "é" * 32 * KIB}, False),
        ({"é" * 16 * KIB: "é" * 16 * KIB}, True),
        ({"é" * 16 * KIB: "é" * 16 * KIB + "x"}, False),
        ({f"{n:04}": "x" * 60 for n in range(1024)}, True),
        ({f"{n:04}": "x" * 60 for n in range(1025)}, False),
        ({"": ""}, True),
    ],
)
def test_attributes_may_have_64_kib_of_keys_and_values_together(attributes, permitted):
    message = pb.IssueTokenRequest(role="guest", attributes=attributes)
    assert paths(message) == (set() if permitted else {"attributes"})


@examples(50)
@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=8))
def test_attributes_and_metadata_take_any_text(attributes):
    metadata = "".join(attributes.values())
    assert not violations(pb.IssueTokenRequest(role="guest", attributes=attributes, metadata=metadata))


def test_the_size_of_a_webhooks_body_is_a_setting_and_no_rule():
    assert not violations(pb.VerifyWebhookRequest(body=b"x" * 2 * KIB * KIB, authorization="a"))


# Text, written out

BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
NONCHARACTERS = [*range(0xFDD0, 0xFDF0), *(plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF))]
CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
IDENTIFIERS: list[Callable[[str], Message]] = [
    lambda text: pb.IssueTokenRequest(role="guest", identity=text),
    lambda text: pb.IssueTokenRequest(role="guest", room=text),
    lambda text: pb.IssueTokenRequest(grants={"video": {"destination_room": text}}),
]


@pytest.mark.parametrize("holding", IDENTIFIERS)
def test_identities_and_rooms_hold_no_controls_bidi_controls_or_noncharacters(holding):
    for code in CONTROLS + BIDI + NONCHARACTERS:
        assert violations(holding(f"a{chr(code)}b")), hex(code)


@pytest.mark.parametrize("holding", IDENTIFIERS)
def test_identities_and_rooms_hold_everything_else(holding):
    refused = {*CONTROLS, *BIDI, *NONCHARACTERS, *range(0xD800, 0xE000)}
    others = [code for code in range(0x3000) if code not in refused]
    others += [code for code in range(0xF000, 0x11000) if code not in refused]
    for start in range(0, len(others), 60):
        assert not violations(holding("".join(map(chr, others[start : start + 60]))))


def named(field: str, text: str) -> pb.IssueTokenRequest:
    request = pb.IssueTokenRequest(role="guest")
    setattr(request, field, text)
    return request


@pytest.mark.parametrize("field", ["name", "room_preset"])
def test_names_refuse_control_characters_only(field):
    for code in CONTROLS:
        assert paths(named(field, chr(code))) == {field}, hex(code)
    for code in BIDI + NONCHARACTERS:
        assert not violations(named(field, chr(code))), hex(code)


@pytest.mark.parametrize("field", ["identity", "name", "room", "room_preset"])
@pytest.mark.parametrize(
    ("text", "permitted"),
    [
        ("x" * 256, True),
        ("x" * 257, False),
        ("é" * 128, True),
        ("é" * 128 + "x", False),
        ("😀" * 64, True),
        ("😀" * 65, False),
    ],
)
def test_a_limit_counts_bytes_of_utf_8(field, text, permitted):
    assert paths(pb.IssueTokenRequest(role="guest", **{field: text})) == (set() if permitted else {field})


@pytest.mark.parametrize(("size", "permitted"), [(512 * KIB, True), (512 * KIB + 1, False)])
def test_metadata_may_have_512_kib(size, permitted):
    assert paths(pb.IssueTokenRequest(role="guest", metadata="x" * size)) == (set() if permitted else {"metadata"})


# What is said


def spelled(**video: Any) -> Message:
    return pb.IssueTokenRequest(grants={"video": video})


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (spelled(can_publish_sources=[TrackSource.TRACK_SOURCE_CAMERA] * 2), "grants.video.can_publish_sources"),
        (spelled(can_publish_sources=[0]), "grants.video.can_publish_sources"),
        (spelled(can_publish_sources=[9]), "grants.video.can_publish_sources"),
        (spelled(destination_room="\n"), "grants.video.destination_room"),
        (pb.IssueTokenRequest(grants={"agent_thread": {"thread_ids": ["a", ""]}}), "grants.agent_thread.thread_ids"),
        (
            pb.IssueTokenRequest(role="r", room_config={"agents": [{}, {"agent_name": "\0"}]}),
            "room_config.agents[1].agent_name",
        ),
        (
            pb.IssueTokenRequest(role="r", room_config={"egress": {"room": {"image_outputs": [{"width": -1}]}}}),
            "room_config.egress.room.image_outputs[0].width",
        ),
        (
            pb.IssueTokenRequest(role="r", room_config={"egress": {"room": {"advanced": {"audio_codec": 9}}}}),
            "room_config.egress.room.advanced.audio_codec",
        ),
        (pb.IssueTokenRequest(role="r", kind=UNKNOWN_KIND), "kind"),
        (pb.IssueTokenRequest(), "access"),
        (pb.VerifyTokenRequest(), "token"),
    ],
)
def test_a_violation_names_the_fields_path(message, path):
    assert [violation.field for violation in violations(message)] == [path]


@examples(50)
@given(messages(pb.IssueTokenRequest, any_values))
def test_a_violation_never_quotes_a_value(message):
    message.identity = "MARKER\n"
    message.role = "MARKER!"
    assert {"identity", "role"} <= paths(message)
    assert "MARKER" not in str(violations(message))


def test_every_broken_rule_is_told_and_in_the_order_of_the_fields():
    message = pb.IssueTokenRequest(project="P", identity="\n", name="\n", room="\n", kind=UNKNOWN_KIND)
    assert [violation.field for violation in violations(message)] == [
        "access",
        "project",
        "identity",
        "name",
        "room",
        "kind",
    ]


def test_limits_of_the_contract_are_the_servers():
    assert (MAX_TTL, MAX_BATCH) == (31_536_000, 500)


def test_judging_a_large_request_takes_no_time_to_speak_of():
    """A guard against patterns that backtrack: half a mebibyte is judged in well under a second."""
    message = pb.IssueTokenRequest(role="a" * 100_000 + "!", project="a-" * 50_000, metadata="x" * 512 * KIB)
    message.identity = "é" * 100_000
    started = time.perf_counter()
    assert paths(message) == {"project", "identity", "role"}
    assert time.perf_counter() - started < 1
