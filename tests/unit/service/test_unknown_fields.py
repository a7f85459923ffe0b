"""Where an unknown field is: the walk agrees with the parser, and its work is bounded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import assume, event, given
from hypothesis import strategies as st

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.grants_pb2 import PARTICIPANT_KIND_SIP
from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.service.unknown_fields import MAX_FIELDS, UnknownField, first_unknown
from support.examples import examples
from support.fakes import AuditTrail
from support.handlers import issue_batch, issuer, listed
from support.messages import is_map, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

ASK = pb.IssueTokenRequest.DESCRIPTOR
NEW = b"\xba\x3e\x06secret"  # field 999


def places(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The message and every message in it, with the path of each."""
    yield path, message
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE or is_map(field):
            continue
        below = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            for index, item in enumerate(value):
                yield from places(item, f"{below}[{index}]")
        else:
            yield from places(value, below)


NO_TTL = frozenset({"IssueTokenRequest.ttl"})
requests = messages(pb.IssueTokenRequest, without=NO_TTL) | messages(pb.BatchIssueTokensRequest, without=NO_TTL)


@examples(300)
@given(requests, st.data())
def test_an_unknown_field_is_found_in_any_message(request: Message, data: st.DataObject) -> None:
    assert first_unknown(request.DESCRIPTOR, request.SerializeToString()) is None
    path, message = data.draw(st.sampled_from(list(places(request))))
    message.MergeFromString(NEW)
    assert first_unknown(request.DESCRIPTOR, request.SerializeToString()) == UnknownField(path, 999)


@examples(500)
@given(st.binary(max_size=24) | requests.map(lambda message: message.SerializeToString()), st.data())
def test_the_walk_finds_a_field_exactly_when_the_parser_does(content: bytes, data: st.DataObject) -> None:
    if content:
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
    message = pb.IssueTokenRequest()
    try:
        message.ParseFromString(content)
    except DecodeError:
        assume(False)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    unknown = message.ByteSize() != size
    event(f"unknown: {unknown}")
    assert (first_unknown(ASK, content) is not None) is unknown


@pytest.mark.parametrize(
    "data",
    [
        b"\x5a\xfe\xff\x3f" + b"\x4a\x00" * 524_255 + NEW,  # empty agents of a room's configuration
        b"\x2a\x00" * 500_000 + NEW,  # empty attributes
        b"\x3a\xc3\x84\x3d\x0a\xbf\x84\x3d" + b"\x28\x01" * 499_999 + b"\x28" + NEW,
    ],
)
def test_the_work_is_bounded_whatever_the_request(data: bytes) -> None:
    began = time.process_time()
    assert first_unknown(ASK, data) is None
    assert time.process_time() - began < 0.1  # 3 ms, and 1.5 s for the whole of it


def test_the_first_of_many_unknown_fields_is_named() -> None:
    assert first_unknown(ASK, b"\xb8\x3e\x01" * 300_000) == UnknownField("", 999)


def test_as_many_fields_as_clients_send_are_looked_at() -> None:
    request = pb.IssueTokenRequest(
        role="guest", room="r", identity="i", name="n", metadata="m", kind=PARTICIPANT_KIND_SIP
    )
    request.attributes.update({f"key-{number}": "value" for number in range(200)})
    for number in range(16):
        agent = request.room_config.agents.add(agent_name="a", metadata="m", deployment="d")
        agent.attributes.update({f"key-{number}": "value" for number in range(5)})
    request.room_config.agents[15].MergeFromString(NEW)
    expected = UnknownField("room_config.agents[15]", 999)
    assert first_unknown(ASK, request.SerializeToString()) == expected
    assert MAX_FIELDS > 1000


async def test_a_batch_says_which_entry_and_never_a_value() -> None:
    request = pb.BatchIssueTokensRequest()
    for _ in range(4):
        request.requests.add(role="guest").attributes["a secret key"] = "a secret value"
    request.requests[3].room_config.agents.add().MergeFromString(NEW)
    with pytest.raises(Refusal) as caught:
        await issue_batch(issuer(AuditTrail()), listed(), request)
    assert caught.value.metadata["field_path"] == "requests[3].room_config.agents[0]"
    assert caught.value.metadata["field_number"] == "999"
    assert "secret" not in f"{caught.value.message}{caught.value.metadata}"


async def test_a_field_of_the_batch_itself_is_in_no_entry() -> None:
    request = pb.BatchIssueTokensRequest(requests=[pb.IssueTokenRequest(role="guest")])
    request.MergeFromString(NEW)
    with pytest.raises(Refusal) as caught:
        await issue_batch(issuer(AuditTrail()), listed(), request)
    assert caught.value.metadata["field_path"] == ""
