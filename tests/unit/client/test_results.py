"""The values made from the server's responses."""

import sys
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import ParseError

from livekit_auth import EntryShortfall, Lack
from livekit_auth._messages import results
from livekit_auth._messages.decision import decision
from livekit_auth._messages.permissions import allow_entries
from livekit_auth._messages.webhook import verified_webhook
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.decision_pb2 import Decision
from livekit_auth.v1.grants_pb2 import ParticipantKind
from livekit_auth.v1.permissions_pb2 import AllowEntry, Matcher
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
    verified = results.verified_token(pb.VerifyTokenResponse(kind=kind, raw_kind="as-signed"))
    assert (verified.kind, verified.raw_kind) == (name, "as-signed")


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
        (Matcher(exact="lobby"), "exact:lobby"),
        (Matcher(prefix="consult-"), "prefix:consult-"),
        (Matcher(any=True), "any"),
        (Matcher(), "unknown"),
    ],
)
def test_matcher_is_shown_as_in_the_policy(message, text):
    [entry] = allow_entries([pb.ListPermissionsResponse(entries=[AllowEntry(rooms=[message])])])
    assert str(entry.rooms[0]) == text


def test_entry_that_goes_on_over_pages_is_joined():
    first = AllowEntry(name="web", index=0, projects=["a"], powers=["agent"], rooms=[Matcher(exact="1")])
    first.max_ttl.seconds = first.default_ttl.seconds = 60
    then = AllowEntry(name="web", index=0, rooms=[Matcher(exact="2"), Matcher(prefix="3")])
    then.roles.add(name="guest").grants.video.room_join = True
    then.max_ttl.seconds = then.default_ttl.seconds = 60
    last = AllowEntry(name="web", index=1, rooms=[Matcher(any=True)])
    pages = [pb.ListPermissionsResponse(entries=entries) for entries in ([first], [then], [], [last])]
    joined, other = allow_entries(pages)
    assert (joined.name, joined.index, joined.projects, joined.powers) == ("web", 0, ("a",), ("agent",))
    assert [str(room) for room in joined.rooms] == ["exact:1", "exact:2", "prefix:3"]
    assert [(role.name, role.grants.video.room_join) for role in joined.roles] == [("guest", True)]
    assert (joined.default_ttl, joined.max_ttl) == (timedelta(minutes=1), timedelta(minutes=1))
    assert (other.index, [str(room) for room in other.rooms]) == (1, ["any"])


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (pb.DUPLICATE_STATUS_NEW, "new"),
        (pb.DUPLICATE_STATUS_DUPLICATE, "duplicate"),
        (pb.DUPLICATE_STATUS_UNKNOWN, "unknown"),
        (pb.DUPLICATE_STATUS_UNSPECIFIED, "unknown"),
        (99, "unknown"),
    ],
)
def test_only_a_certain_duplicate_is_one(status, shown):
    event = verified_webhook(pb.VerifyWebhookResponse(duplicate_status=status), BODY)
    assert (event.duplicate_status, event.is_duplicate) == (shown, shown == "duplicate")


def test_truncated_fields_have_the_names_of_the_value():
    message = pb.VerifyWebhookResponse()
    message.event.truncated.extend(["raw_type", "id", "room", "participant_identity", "added_later"])
    event = verified_webhook(message, BODY)
    assert event.truncated == ("type", "event_id", "room", "participant_identity", "added_later")
    assert {*event.truncated[:4]} <= {*event.__dataclass_fields__}


def test_decision_has_what_each_entry_lacked():
    message = Decision(decision_id="dec-1", reason="ROOM_NOT_PERMITTED", request_reason="TICKET-1", shortfall_count=2)
    message.decide_time.seconds = 1
    message.ttl.seconds = 60
    message.shortfalls.add(entry="web").lacks.add(reason="ROOM_NOT_PERMITTED", message="not this room")
    found = decision(message)
    assert (found.decision_id, found.reason, found.request_reason) == ("dec-1", "ROOM_NOT_PERMITTED", "TICKET-1")
    assert (found.ttl, found.shortfall_count) == (timedelta(minutes=1), 2)
    assert found.shortfalls == (
        EntryShortfall(entry="web", lacks=(Lack(reason="ROOM_NOT_PERMITTED", message="not this room"),)),
    )
    assert decision(Decision()).ttl is None
