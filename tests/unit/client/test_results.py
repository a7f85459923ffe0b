"""The values made from the server's responses."""

import sys
from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import ParseError

from livekit_auth._messages import results
from livekit_auth._messages.webhook import verified_webhook
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.grants_pb2 import ParticipantKind
from support.fake_auth_server import TOKEN, issued

BODY = b'{"event": "room_started", "id": "EV_1", "room": {"name": "lobby"}, "added_later": 1}'


def webhook(body=BODY):
    return verified_webhook(pb.VerifyWebhookResponse(key_id="APIkey", project="default"), body)


def test_repr_of_an_issued_token_omits_the_token():
    token = results.issued_token(issued())
    assert token.token == TOKEN
    assert TOKEN not in repr(token)
    assert TOKEN not in str(token)


def test_times_are_timezone_aware():
    token = results.issued_token(issued())
    assert token.expire_time.tzinfo is UTC
    assert (token.expire_time - token.issue_time).total_seconds() == 600


def test_repr_of_a_webhook_omits_its_body():
    assert "room_started" not in repr(webhook())


def test_webhook_without_a_time_has_none():
    assert webhook().create_time is None


def test_parse_returns_livekits_event_and_ignores_unknown_fields():
    event = webhook().parse()
    assert type(event).DESCRIPTOR.full_name == "livekit.WebhookEvent"
    assert (event.event, event.id, event.room.name) == ("room_started", "EV_1", "lobby")


def test_parse_refuses_json_that_is_not_an_event():
    with pytest.raises(ParseError):
        webhook(b'{"event": 5}').parse()


def test_parse_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit.protocol.webhook", None)
    with pytest.raises(ImportError, match=r"pip install 'livekit-api"):
        webhook().parse()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(ParticipantKind.PARTICIPANT_KIND_AGENT, "agent"), (ParticipantKind.PARTICIPANT_KIND_UNSPECIFIED, ""), (99, "")],
)
def test_verified_tokens_kind_has_livekits_name(kind, name):
    assert results.verified_token(pb.VerifyTokenResponse(kind=kind)).kind == name


def test_verified_token_has_the_fields_that_are_set():
    message = pb.VerifyTokenResponse(attributes={"a": "b"}, other_claims=["x"])
    message.issue_time.seconds = 1
    message.room_config.max_participants = 2
    verified = results.verified_token(message)
    assert verified.attributes == {"a": "b"}
    assert verified.other_claims == ("x",)
    assert verified.issue_time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert verified.room_config is not None
    assert verified.room_config.max_participants == 2


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.Matcher(exact="lobby"), "exact:lobby"),
        (pb.Matcher(prefix="consult-"), "prefix:consult-"),
        (pb.Matcher(any=True), "any"),
        (pb.Matcher(), "unknown"),
    ],
)
def test_matcher_is_shown_as_in_the_policy(message, text):
    caller = results.caller(pb.GetCallerResponse(allow=[pb.AllowEntry(rooms=[message])]))
    assert str(caller.allow[0].rooms[0]) == text
