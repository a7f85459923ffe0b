"""VerifyWebhook, AckWebhook and VerifyToken against the real server."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import grants_pb2, webhook_pb2
from support.refusals import refusal
from support.signing import access_token, event, webhook_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from support.deployment import Deployment

BODY = event()


def verify(stub: AuthServiceStub, body: bytes = BODY, authorization: str | None = None, **fields: Any) -> Any:
    authorization = webhook_token(body) if authorization is None else authorization
    return stub.VerifyWebhook(pb.VerifyWebhookRequest(body=body, authorization=authorization, **fields))


def test_livekits_webhook_is_recognised(hooks: AuthServiceStub) -> None:
    answer = verify(hooks)
    assert answer.event.type == webhook_pb2.WEBHOOK_EVENT_TYPE_PARTICIPANT_JOINED
    assert (answer.event.raw_type, answer.event.id) == ("participant_joined", "EV_1")
    assert (answer.event.room, answer.event.participant_identity) == ("consult-1", "user-1")
    assert answer.event.create_time.seconds == 1_700_000_000
    assert (answer.project, answer.key_id) == ("alpha", "APIalpha")


def test_bearer_before_the_token_is_accepted(hooks: AuthServiceStub) -> None:
    assert verify(hooks, authorization=f"Bearer {webhook_token(BODY)}").key_id == "APIalpha"


def test_a_verify_only_key_still_verifies_and_a_revoked_one_doesnt(hooks: AuthServiceStub) -> None:
    assert verify(hooks, authorization=webhook_token(BODY, "APIolder")).key_id == "APIolder"
    got = refusal(lambda: verify(hooks, authorization=webhook_token(BODY, "APIgone")))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "KEY_UNKNOWN")


def test_another_projects_key_answers_as_an_unknown_one(hooks: AuthServiceStub) -> None:
    foreign = refusal(lambda: verify(hooks, authorization=webhook_token(BODY, "APIbeta")))
    unknown = refusal(lambda: verify(hooks, authorization=webhook_token(BODY, "APInever")))
    assert foreign == unknown
    assert foreign.reason == "KEY_UNKNOWN"
    assert refusal(lambda: verify(hooks, project="beta")).reason == "PROJECT_NOT_PERMITTED"
    assert refusal(lambda: verify(hooks, project="never")).reason == "PROJECT_NOT_PERMITTED"


RSA = rsa.generate_private_key(65537, 2048)
NOW = int(time.time())  # tokens that hold are made when their test runs, however late that is


@pytest.mark.parametrize(
    ("body", "authorization", "reason"),
    [
        (BODY[:-1], lambda: webhook_token(BODY), "BODY_ALTERED"),
        (BODY.replace(b"user-1", b"user-2"), lambda: webhook_token(BODY), "BODY_ALTERED"),
        (json.dumps(json.loads(BODY), indent=1).encode(), lambda: webhook_token(BODY), "BODY_ALTERED"),
        (b"[1]", lambda: webhook_token(b"[1]"), "BODY_NOT_JSON"),
        (b"\xff\xfe", lambda: webhook_token(b"\xff\xfe"), "BODY_NOT_JSON"),
        (b"[" * 5000, lambda: webhook_token(b"[" * 5000), "BODY_NOT_JSON"),
        (BODY, lambda: webhook_token(BODY, algorithm="HS512"), "TOKEN_MALFORMED"),
        (BODY, lambda: webhook_token(BODY, algorithm="none"), "TOKEN_MALFORMED"),
        (BODY, lambda: jwt.encode({"iss": "APIalpha", "exp": NOW + 60}, RSA, algorithm="RS256"), "TOKEN_MALFORMED"),
        (BODY, access_token, "NOT_A_WEBHOOK_TOKEN"),
        (BODY, lambda: webhook_token(BODY, sub="user-1"), "NOT_A_WEBHOOK_TOKEN"),
        (BODY, lambda: webhook_token(BODY, video={"roomJoin": True}), "NOT_A_WEBHOOK_TOKEN"),
        (BODY, lambda: webhook_token(BODY, sha256=None), "NOT_A_WEBHOOK_TOKEN"),
        (BODY, lambda: webhook_token(BODY, sha256="!!" + "A" * 43 + "="), "TOKEN_MALFORMED"),
        (BODY, lambda: webhook_token(BODY, sha256="A" * 40), "TOKEN_MALFORMED"),
        (BODY, lambda: webhook_token(BODY, exp=NOW - 3600), "TOKEN_EXPIRED"),
        (BODY, lambda: webhook_token(BODY, nbf=NOW + 3600), "TOKEN_EXPIRED"),
        (BODY, lambda: webhook_token(BODY, exp=None), "TOKEN_MALFORMED"),
        (BODY, lambda: webhook_token(BODY)[:-3] + "AAA", "SIGNATURE_INVALID"),
        (BODY, lambda: f"{webhook_token(BODY)}, {webhook_token(BODY)}", "TOKEN_MALFORMED"),
        (BODY, lambda: f"Basic {webhook_token(BODY)}", "TOKEN_MALFORMED"),
        (BODY, lambda: "no.to.ken", "TOKEN_MALFORMED"),
        (BODY, lambda: "", "REQUEST_INVALID"),
        (b"", lambda: webhook_token(b""), "REQUEST_INVALID"),
        (BODY, lambda: "a" * 8193, "REQUEST_INVALID"),
        (b" " * (1024 * 1024 + 1), lambda: webhook_token(BODY), "BODY_TOO_LARGE"),
    ],
)
def test_what_livekit_didnt_sign_is_refused_with_its_reason(
    hooks: AuthServiceStub, body: bytes, authorization: Callable[[], str], reason: str
) -> None:
    header = authorization()
    got = refusal(lambda: verify(hooks, body, header))
    assert got.reason == reason
    assert got.code == "INVALID_ARGUMENT"
    assert header not in got.message or not header
    assert verify(hooks).key_id == "APIalpha"


def test_the_largest_body_is_taken(hooks: AuthServiceStub) -> None:
    body = event(filler="x" * (1024 * 1024 - 400))
    assert verify(hooks, body).event.id == "EV_1"


def test_an_acknowledged_event_is_a_duplicate_for_its_consumer_only(server: Deployment, hooks: AuthServiceStub) -> None:
    body = event(id="EV_ack")
    first = verify(hooks, body)
    assert first.duplicate_status == pb.DUPLICATE_STATUS_NEW
    assert verify(hooks, body).duplicate_status == pb.DUPLICATE_STATUS_NEW, "verifying consumes nothing"
    digest = hashlib.sha256(body).digest()
    ack = pb.AckWebhookRequest(project=first.project, event_id="EV_ack", body_sha256=digest)
    assert hooks.AckWebhook(ack).expire_time.seconds > time.time()
    assert verify(hooks, body).duplicate_status == pb.DUPLICATE_STATUS_DUPLICATE
    other_bytes = verify(hooks, event(id="EV_ack", more=1))
    assert other_bytes.duplicate_status == pb.DUPLICATE_STATUS_NEW, "other signed bytes are another event"
    other_caller = verify(server.caller("spiffe://example.org/hooks2"), body)
    assert other_caller.duplicate_status == pb.DUPLICATE_STATUS_NEW


def test_an_event_without_an_id_is_never_a_duplicate(hooks: AuthServiceStub) -> None:
    answer = verify(hooks, event(id=""))
    assert (answer.event.id, answer.duplicate_status) == ("", pb.DUPLICATE_STATUS_UNKNOWN)


def test_a_room_and_an_identity_that_are_too_long_are_empty_and_named(hooks: AuthServiceStub) -> None:
    answer = verify(hooks, event(room={"name": "r" * 257}, participant={"identity": "é" * 129}))
    assert (answer.event.room, answer.event.participant_identity) == ("", "")
    assert list(answer.event.truncated) == ["room", "participant_identity"]
    assert answer.duplicate_status == pb.DUPLICATE_STATUS_NEW


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"body_sha256": b"short"}, "body_sha256"),
        ({"project": ""}, "project"),
    ],
)
def test_an_acknowledgement_names_its_event_whole(hooks: AuthServiceStub, fields: dict[str, Any], field: str) -> None:
    good = {"project": "alpha", "event_id": "EV_1", "body_sha256": b"\0" * 32}
    got = refusal(lambda: hooks.AckWebhook(pb.AckWebhookRequest(**{**good, **fields})))
    assert (got.reason, got.fields) == ("REQUEST_INVALID", (field,))


def test_a_caller_that_may_verify_nothing_is_denied(web: AuthServiceStub) -> None:
    assert refusal(lambda: verify(web)).reason == "PROJECT_NOT_PERMITTED"
    request = pb.VerifyTokenRequest(token=access_token())
    assert refusal(lambda: web.VerifyToken(request)).reason == "PROJECT_NOT_PERMITTED"


def test_an_issued_token_verifies(web: AuthServiceStub, hooks: AuthServiceStub) -> None:
    issued = web.IssueToken(
        pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", metadata="m", attributes={"a": "b"})
    )
    answer = hooks.VerifyToken(pb.VerifyTokenRequest(token=issued.token))
    assert (answer.identity, answer.room, answer.metadata) == ("user-1", "consult-1", "m")
    assert dict(answer.attributes) == {"a": "b"}
    assert answer.grants == issued.grants
    assert (answer.key_id, answer.project) == ("APIalpha", "alpha")
    assert (answer.issue_time, answer.expire_time) == (issued.issue_time, issued.expire_time)
    assert not answer.other_claims


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: webhook_token(BODY), "NOT_AN_ACCESS_TOKEN"),
        (lambda: access_token("APIbeta"), "KEY_UNKNOWN"),
        (lambda: access_token("APIgone"), "KEY_UNKNOWN"),
        (lambda: access_token(exp=NOW - 61), "TOKEN_EXPIRED"),
        (lambda: access_token(algorithm="none"), "TOKEN_MALFORMED"),
        (lambda: access_token(algorithm="HS384"), "TOKEN_MALFORMED"),
        (lambda: access_token(video="yes"), "TOKEN_MALFORMED"),
        (lambda: access_token()[:-4] + "AAAA", "SIGNATURE_INVALID"),
        (lambda: "", "REQUEST_INVALID"),
        (lambda: "é.é.é", "TOKEN_MALFORMED"),
    ],
)
def test_a_token_that_doesnt_hold_is_refused(hooks: AuthServiceStub, token: Callable[[], str], reason: str) -> None:
    assert refusal(lambda: hooks.VerifyToken(pb.VerifyTokenRequest(token=token()))).reason == reason


def test_claims_that_arent_modelled_are_named_and_credentials_left_out(hooks: AuthServiceStub) -> None:
    config = {"maxParticipants": 5, "egress": {"tracks": {"filepath": "p", "s3": {"secret": "HIDDEN"}}}}
    token = access_token(futureClaim=1, video={"roomJoin": True, "futureGrant": True}, roomConfig=config)
    answer = hooks.VerifyToken(pb.VerifyTokenRequest(token=token))
    assert list(answer.other_claims) == ["futureClaim", "video.futureGrant"]
    assert answer.room_config.max_participants == 5
    assert answer.room_config.egress.tracks.filepath == "p"
    assert "HIDDEN" not in str(answer)


def test_a_token_without_a_subject_is_its_jtis_as_livekit_reads_it(hooks: AuthServiceStub) -> None:
    answer = hooks.VerifyToken(pb.VerifyTokenRequest(token=access_token(sub=None, jti="user-9")))
    assert (answer.identity, list(answer.other_claims)) == ("user-9", [])


@pytest.mark.parametrize(
    ("kind", "known", "raw"),
    [
        ("bridge", "PARTICIPANT_KIND_BRIDGE", "bridge"),
        ("Connector", "PARTICIPANT_KIND_CONNECTOR", "Connector"),
        ("hologram", "PARTICIPANT_KIND_UNSPECIFIED", "hologram"),
        ("é" * 40, "PARTICIPANT_KIND_UNSPECIFIED", "é" * 32),
        (None, "PARTICIPANT_KIND_UNSPECIFIED", ""),
    ],
)
def test_a_kind_is_told_by_the_name_that_the_token_has(
    hooks: AuthServiceStub, kind: str | None, known: str, raw: str
) -> None:
    answer = hooks.VerifyToken(pb.VerifyTokenRequest(token=access_token(kind=kind)))
    assert (grants_pb2.ParticipantKind.Name(answer.kind), answer.raw_kind) == (known, raw)


def test_a_flag_that_the_token_sets_to_false_differs_from_one_that_it_doesnt_name(hooks: AuthServiceStub) -> None:
    token = access_token(video={"canSubscribeMetrics": False, "canUpdateOwnMetadata": True})
    video = hooks.VerifyToken(pb.VerifyTokenRequest(token=token)).grants.video
    assert (video.HasField("can_subscribe_metrics"), video.can_subscribe_metrics) == (True, False)
    assert (video.HasField("can_update_own_metadata"), video.can_update_own_metadata) == (True, True)
    assert not video.HasField("can_manage_agent_session")
    assert not video.HasField("can_publish")
