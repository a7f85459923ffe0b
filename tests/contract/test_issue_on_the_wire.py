"""IssueToken and BatchIssueTokens against the real server: what is asked for, what is wrong, what is refused."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from google.protobuf.duration_pb2 import Duration

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import grants_pb2, room_config_pb2
from support.deployment import SECRETS
from support.refusals import refusal

if TYPE_CHECKING:
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from support.deployment import Deployment

GOOD: dict[str, Any] = {"role": "guest", "room": "consult-1", "identity": "user-1"}
JOIN = grants_pb2.Grants(video=grants_pb2.VideoGrant(room_join=True))


def ask(**changes: Any) -> pb.IssueTokenRequest:
    return pb.IssueTokenRequest(**{name: value for name, value in {**GOOD, **changes}.items() if value is not None})


def test_a_token_says_what_was_asked_for(web: AuthServiceStub) -> None:
    answer = web.IssueToken(ask(name="Ann", metadata='{"a": 1}', attributes={"k": "v"}, ttl=Duration(seconds=90)))
    claims = jwt.decode(answer.token, SECRETS["APIalpha"], algorithms=["HS256"])
    assert claims == {
        "name": "Ann",
        "metadata": '{"a": 1}',
        "video": {
            "roomJoin": True,
            "room": "consult-1",
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        },
        "attributes": {"k": "v"},
        "sub": "user-1",
        "iss": "APIalpha",
        "nbf": answer.issue_time.seconds,
        "exp": answer.issue_time.seconds + 90,
    }
    assert answer.expire_time.seconds == claims["exp"]
    assert (answer.url, answer.key_id, answer.project) == ("wss://alpha.example.org", "APIalpha", "alpha")
    assert answer.grants.video.HasField("can_publish_data")


def test_a_decision_is_in_the_audit_trail_with_the_tokens_hash(server: Deployment, web: AuthServiceStub) -> None:
    answer = web.IssueToken(ask())
    record = server.audit(answer.decision_id)
    assert record["token_sha256"] == hashlib.sha256(answer.token.encode()).hexdigest()
    assert (record["permitted"], record["entry"], record["caller"]) == (True, "consult", "spiffe://example.org/web")


def test_a_denial_is_in_the_audit_trail_too(server: Deployment, web: AuthServiceStub) -> None:
    got = refusal(lambda: web.IssueToken(ask(room="board")))
    record = server.audit(got.metadata["decision_id"])
    assert (record["permitted"], record["reason"], record["room"]) == (False, "ROOM_NOT_PERMITTED", "board")


def test_a_traceparent_is_in_the_audit_trail(server: Deployment, web: AuthServiceStub) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = web.IssueToken(ask(), metadata=(("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),))
    assert server.audit(answer.decision_id)["trace_id"] == trace


def test_validate_only_checks_everything_and_mints_nothing(server: Deployment, web: AuthServiceStub) -> None:
    answer = web.IssueToken(ask(validate_only=True))
    assert not answer.token
    assert answer.key_id == "APIalpha"
    record = server.audit(answer.decision_id)
    assert (record["dry_run"], record["token_sha256"]) == (True, "")
    assert refusal(lambda: web.IssueToken(ask(validate_only=True, room="board"))).reason == "ROOM_NOT_PERMITTED"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "worker"}, "ROLE_NOT_PERMITTED"),
        ({"role": "no-such-role"}, "ROLE_NOT_PERMITTED"),
        ({"role": None, "grants": JOIN}, "GRANT_NOT_PERMITTED"),
        ({"project": "beta"}, "PROJECT_NOT_PERMITTED"),
        ({"project": "no-such-project"}, "PROJECT_NOT_PERMITTED"),
        ({"room": "board"}, "ROOM_NOT_PERMITTED"),
        ({"identity": "admin"}, "IDENTITY_NOT_PERMITTED"),
        ({"ttl": Duration(seconds=3601)}, "TTL_NOT_PERMITTED"),
        ({"kind": grants_pb2.PARTICIPANT_KIND_AGENT}, "POWER_NOT_PERMITTED"),
        ({"room_config": room_config_pb2.RoomConfig(max_participants=2)}, "POWER_NOT_PERMITTED"),
        ({"room_preset": "big"}, "POWER_NOT_PERMITTED"),
    ],
)
def test_what_the_policy_doesnt_permit_is_denied(web: AuthServiceStub, changes: dict[str, Any], reason: str) -> None:
    got = refusal(lambda: web.IssueToken(ask(**changes)))
    assert (got.code, got.reason) == ("PERMISSION_DENIED", reason)
    assert got.metadata["decision_id"]
    assert web.IssueToken(ask()).token


def test_unknown_and_forbidden_get_one_answer(web: AuthServiceStub) -> None:
    for field, forbidden, unknown in (("role", "worker", "wxrker"), ("project", "beta", "bexa")):
        answers = []
        for value in (forbidden, unknown):
            got = refusal(partial(web.IssueToken, ask(**{field: value})))
            got.metadata.pop("decision_id")
            answers.append((got.code, got.reason, got.message.replace(value, "X"), got.metadata, got.fields))
        assert answers[0] == answers[1]


UNKNOWN_ENUM = pb.IssueTokenRequest.FromString(ask().SerializeToString() + b"\x50\x63")  # kind = 99


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ask(room=None), "room"),
        (ask(identity=None), "identity"),
        (ask(identity="user-" + "é" * 126), "identity"),
        (ask(identity="user-\x00"), "identity"),
        (ask(identity="user-\x7f"), "identity"),
        (ask(identity="user-\u202e"), "identity"),
        (ask(room="consult-\u2066"), "room"),
        (ask(room="consult-\ufdd0"), "room"),
        (ask(room="consult-\n"), "room"),
        (ask(room="consult-" + "x" * 249), "room"),
        (ask(name="a\tb"), "name"),
        (ask(name="x" * 257), "name"),
        (ask(metadata="x" * (512 * 1024 + 1)), "metadata"),
        (ask(attributes={"k" * 40000: "v" * 40000}), "attributes"),
        (ask(ttl=Duration(seconds=-1)), "ttl"),
        (ask(ttl=Duration()), "ttl"),
        (ask(ttl=Duration(seconds=1, nanos=500_000_000)), "ttl"),
        (ask(ttl=Duration(nanos=1)), "ttl"),
        (ask(ttl=Duration(seconds=60, nanos=-1)), "ttl"),
        (ask(ttl=Duration(seconds=365 * 24 * 3600 + 1)), "ttl"),
        (ask(ttl=Duration(seconds=9_000_000_000_000_000)), "ttl"),
        (ask(role=None), "access"),
        (ask(role="Guest"), "role"),
        (ask(project="-alpha"), "project"),
        (UNKNOWN_ENUM, "kind"),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(
    web: AuthServiceStub, request_: pb.IssueTokenRequest, field: str
) -> None:
    got = refusal(lambda: web.IssueToken(request_))
    assert (got.code, got.reason, got.fields) == ("INVALID_ARGUMENT", "REQUEST_INVALID", (field,))
    assert web.IssueToken(ask()).token


def test_both_role_and_grants_leave_the_last_one_of_the_oneof(web: AuthServiceStub) -> None:
    both = ask().SerializeToString() + pb.IssueTokenRequest(grants=JOIN).SerializeToString()
    assert refusal(lambda: web.IssueToken(pb.IssueTokenRequest.FromString(both))).reason == "GRANT_NOT_PERMITTED"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05a", b"\x12\x02\xff\xfe", b"\x08\x01" * 3 + b"\x0b"])
def test_bytes_that_arent_the_message_are_malformed(server: Deployment, web: AuthServiceStub, data: bytes) -> None:
    issue = server.raw(server.example_ca.issue(uris=["spiffe://example.org/web"]), "IssueToken")
    got = refusal(lambda: issue(data))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert got.message == "the request isn't a livekit_auth.v1.IssueTokenRequest"
    assert web.IssueToken(ask()).token


def unknown_field(message: bytes) -> bytes:
    return message + b"\xa2\x06\x03abc"  # field 100, three bytes


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (unknown_field(ask().SerializeToString()), ""),
        (
            ask(role=None).SerializeToString()
            + b"\x3a"
            + bytes([len(g := unknown_field(JOIN.SerializeToString()))])
            + g,
            "grants",
        ),
    ],
    ids=["at the top", "within grants"],
)
def test_a_field_that_the_server_doesnt_know_is_refused(server: Deployment, data: bytes, path: str) -> None:
    issue = server.raw(server.example_ca.issue(uris=["spiffe://example.org/admin"]), "IssueToken")
    got = refusal(lambda: issue(data))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "FIELD_UNKNOWN")
    assert got.metadata == {"field_path": path, "field_number": "100", "server_version": version("livekit-auth-server")}


def test_egress_credentials_cant_be_put_in_a_room_config(server: Deployment) -> None:
    """livekit's EncodedFileOutput has s3 as its field 3; here a file has no such field."""
    s3 = b"\x1a\x0a\x0a\x03KEY\x12\x03SEC"  # s3 { access_key, secret }
    output = room_config_pb2.FileOutput(filepath="x").SerializeToString() + b"\x2a" + s3[1:]
    config = _nest(5, _nest(1, _nest(6, output)))  # egress.room.file_outputs
    data = ask(role="guest", room="r", identity="i", project="alpha").SerializeToString() + _nest(11, config)
    issue = server.raw(server.example_ca.issue(uris=["spiffe://example.org/admin"]), "IssueToken")
    got = refusal(lambda: issue(data))
    assert got.reason == "FIELD_UNKNOWN"


def _nest(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def test_a_request_without_a_project_is_for_the_default_one(admin: AuthServiceStub) -> None:
    assert admin.IssueToken(ask()).key_id == "APIalpha"
    assert admin.IssueToken(ask(project="beta")).key_id == "APIbeta"


def test_a_batch_answers_each_entry_in_order(server: Deployment, web: AuthServiceStub) -> None:
    entries = [ask(), ask(room="board"), ask(identity="x" * 257), ask(identity="user-2")]
    results = web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=entries)).results
    assert [result.WhichOneof("outcome") for result in results] == ["response", "error", "error", "response"]
    assert [result.error.code for result in results[1:3]] == [7, 3]
    decisions = {results[0].response.decision_id, results[3].response.decision_id}
    assert {server.audit(decision)["method"] for decision in decisions} == {"BatchIssueTokens"}


def test_a_batch_is_bounded(web: AuthServiceStub) -> None:
    too_large = pb.BatchIssueTokensRequest(requests=[ask(metadata="x" * 300_000)] * 4)
    got = refusal(lambda: web.BatchIssueTokens(too_large))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert "over this request's limit of 1048576" in got.message
    for requests in ([], [ask()] * 501):
        got = refusal(partial(web.BatchIssueTokens, pb.BatchIssueTokensRequest(requests=requests)))
        assert (got.code, got.reason, got.fields) == ("INVALID_ARGUMENT", "REQUEST_INVALID", ("requests",))
    results = web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ask()] * 500)).results
    assert all(result.response.token for result in results)


def test_a_batch_stays_below_the_largest_response(web: AuthServiceStub) -> None:
    """Control characters grow six-fold in JSON: a request of under 1 MiB could ask for over 6 MiB of tokens."""
    entries = [ask(metadata="\x01" * 200_000)] * 5
    answer = web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=entries))
    assert answer.ByteSize() <= 3 * 1024 * 1024
    outcomes = [result.WhichOneof("outcome") for result in answer.results]
    assert outcomes.count("response") == 1
    assert {result.error.code for result in answer.results if result.HasField("error")} == {3}


def test_a_token_over_the_largest_response_isnt_minted(web: AuthServiceStub) -> None:
    got = refusal(lambda: web.IssueToken(ask(metadata="\x01" * 524_288)))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "RESPONSE_TOO_LARGE")
    assert web.IssueToken(ask(metadata="é" * 262_144)).token


def test_list_permissions_shows_what_the_policy_permits(web: AuthServiceStub) -> None:
    (entry,) = web.ListPermissions(pb.ListPermissionsRequest()).entries
    assert (entry.name, list(entry.projects)) == ("consult", ["alpha"])
    assert [(role.name, role.grants.video.room_join) for role in entry.roles] == [("guest", True)]
    assert entry.rooms[0].prefix == "consult-"
    assert entry.default_ttl.seconds == 600


def test_the_audit_trail_says_which_powers_a_token_took(server: Deployment, admin: AuthServiceStub) -> None:
    config = room_config_pb2.RoomConfig(agents=[room_config_pb2.RoomAgentDispatch(agent_name="helper")])
    answer = admin.IssueToken(
        ask(project="alpha", room_config=config, room_preset="big", kind=grants_pb2.PARTICIPANT_KIND_SIP)
    )
    record = server.audit(answer.decision_id)
    assert record["powers"] == "kind,room_config,room_config_agents,room_preset"
    assert (record["participant_kind"], record["room_preset"]) == ("sip", "big")
