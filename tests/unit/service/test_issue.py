"""IssueToken and BatchIssueTokens: nothing leaves before its record, and each entry of a batch stands alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, replace
from typing import Any, cast

import jwt
import pytest
from google.rpc import code_pb2, error_details_pb2

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.audit import json_line
from livekit_auth_server.core.grants import Grants, VideoGrants
from livekit_auth_server.core.keys import KeySet, KeyState, Project
from livekit_auth_server.core.policy import AllowEntry, Matcher
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.status import to_status
from livekit_auth_server.service.validation import Valid
from support.fakes import NOW, AuditTrail
from support.handlers import KEY, SECRET, URL, issue_batch, issuer, key, keys_of, listed
from support.policies import ANY, CALLER, EVERYTHING, JOIN

ROLES = {"guest": JOIN, "moderator": Grants(video=VideoGrants(room_join=True, room_admin=True))}
GUESTS = AllowEntry(
    name="guests",
    projects=frozenset({"default"}),
    roles=frozenset({"guest"}),
    rooms=Matcher(prefixes=("consult-",)),
    identities=ANY,
)
WEB = listed(GUESTS, roles=ROLES)
ASKED = pb.IssueTokenRequest(role="guest", room="consult-42", identity="user-7")


@pytest.fixture
def audit():
    return AuditTrail()


def changed(**fields) -> pb.IssueTokenRequest:
    request = pb.IssueTokenRequest()
    request.CopyFrom(ASKED)
    request.MergeFrom(pb.IssueTokenRequest(**fields))
    return request


async def refused(audit: AuditTrail, request: pb.IssueTokenRequest, caller=WEB) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await issuer(audit).issue(caller, Valid(request))
    return caught.value


# One token


async def test_while_the_gate_is_closed_permits_become_recorded_denials_and_nothing_is_minted(audit):
    def closed() -> None:
        raise Refusal(Reason.SELFCHECK_FAILED, "nothing is issued")

    def never(*_: object) -> str:
        pytest.fail("a token was minted")

    gated = replace(issuer(audit), gate=closed, mint=never)
    for request in (ASKED, changed(validate_only=True)):
        with pytest.raises(Refusal) as caught:
            await gated.issue(WEB, Valid(request))
        assert caught.value.reason == audit.records[-1].reason == Reason.SELFCHECK_FAILED
        assert caught.value.metadata["decision_id"] == audit.records[-1].decision_id
    with pytest.raises(Refusal, match="ROOM_NOT_PERMITTED"):
        await gated.issue(WEB, Valid(changed(room="board-1")))
    batch = await issue_batch(gated, WEB, pb.BatchIssueTokensRequest(requests=[ASKED]))
    assert "SELFCHECK_FAILED" in str(batch.results[0].error)


async def test_a_permitted_request_gets_its_token(audit):
    response = await issuer(audit).issue(WEB, Valid(changed(ttl={"seconds": 90})))
    read = jwt.decode(response.token, SECRET, algorithms=["HS256"], options={"verify_nbf": False})
    assert read["sub"] == "user-7"
    assert read["video"] == {
        "roomJoin": True,
        "room": "consult-42",
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }
    assert (read["iss"], read["nbf"], read["exp"]) == (KEY.id, NOW, NOW + 90)
    response.token = ""
    grants = {"video": {"room_join": True, "can_publish": True, "can_subscribe": True, "can_publish_data": True}}
    assert response == pb.IssueTokenResponse(
        url=URL,
        issue_time={"seconds": NOW},
        expire_time={"seconds": NOW + 90},
        grants=grants,
        key_id=KEY.id,
        policy_revision="r1",
        decision_id="d1",
        project="default",
    )


async def test_every_field_that_is_always_set_is_set(audit):
    response = await issuer(audit).issue(WEB, Valid(ASKED))
    assert {field.name for field, _ in response.ListFields()} == set(response.DESCRIPTOR.fields_by_name)


async def test_an_unset_ttl_takes_the_entrys_default(audit):
    response = await issuer(audit).issue(WEB, Valid(ASKED))
    assert response.expire_time.seconds - response.issue_time.seconds == GUESTS.default_ttl


async def test_the_response_isnt_shared_between_calls(audit):
    first = await issuer(audit).issue(WEB, Valid(ASKED))
    first.grants.video.room_admin = True
    assert not (await issuer(audit).issue(WEB, Valid(ASKED))).grants.video.room_admin


async def test_no_token_leaves_while_its_record_is_being_written():
    writing, written = asyncio.Event(), asyncio.Event()

    class Slow(AuditTrail):
        async def record(self, *records):
            writing.set()
            await written.wait()
            await super().record(*records)

    audit = Slow()
    call = asyncio.create_task(issuer(audit).issue(WEB, Valid(ASKED)))
    await asyncio.wait_for(writing.wait(), 5)
    await asyncio.sleep(0)
    assert not call.done()
    written.set()
    response = await call
    assert [record.token_sha256 for record in audit.records] == [hashlib.sha256(response.token.encode()).hexdigest()]


async def test_a_record_says_who_got_what_and_holds_no_token(audit):
    caller = replace(WEB, trace_id="0af7651916cd43dd8448eb211c80319c")
    response = await issuer(audit).issue(
        caller, Valid(changed(ttl={"seconds": 90}, metadata="MARKER", request_reason="T-1"))
    )
    [record] = audit.records
    assert asdict(record) == {
        "decision_id": "d1",
        "time": NOW,
        "caller": CALLER,
        "certificate_serial": "2a",
        "method": "IssueToken",
        "permitted": True,
        "dry_run": False,
        "project": "default",
        "access": "role:guest",
        "room": "consult-42",
        "identity": "user-7",
        "ttl": 90,
        "entry": "guests",
        "reason": "",
        "key_id": KEY.id,
        "token_sha256": hashlib.sha256(response.token.encode()).hexdigest(),
        "policy_revision": "r1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "participant_kind": "",
        "powers": "",
        "room_preset": "",
        "request_reason": "T-1",
    }
    line = json_line(record.members()).decode()
    leaked = [part for part in (response.token, *response.token.split("."), SECRET, "MARKER") if part in line]
    assert not leaked


async def test_a_record_spells_out_the_grants_that_were_asked_for(audit):
    request = pb.IssueTokenRequest(grants={"video": {"room_join": True, "can_publish": False}}, room="r", identity="i")
    await issuer(audit).issue(listed(), Valid(request))
    kind, _, claims = audit.records[0].access.partition(":")
    assert kind == "grants"
    assert json.loads(claims) == {
        "video": {"roomJoin": True, "canPublish": False, "canSubscribe": True, "canPublishData": True}
    }


async def test_an_audit_trail_that_cant_be_written_stops_the_token():
    refusal = await refused(AuditTrail(room=0), ASKED)
    assert refusal.reason is Reason.AUDIT_UNAVAILABLE
    assert to_status(refusal).code == code_pb2.UNAVAILABLE


@pytest.mark.parametrize(
    ("fields", "caller", "reason"),
    [
        ({"role": "moderator"}, WEB, Reason.ROLE_NOT_PERMITTED),
        ({"role": "gone"}, WEB, Reason.ROLE_NOT_PERMITTED),
        ({"project": "other"}, WEB, Reason.PROJECT_NOT_PERMITTED),
        ({"room": "lobby"}, WEB, Reason.ROOM_NOT_PERMITTED),
        ({"ttl": {"seconds": 3601}}, WEB, Reason.TTL_NOT_PERMITTED),
        ({"kind": "PARTICIPANT_KIND_AGENT"}, WEB, Reason.POWER_NOT_PERMITTED),
        ({"room_config": {}}, WEB, Reason.POWER_NOT_PERMITTED),
        ({"grants": {}}, WEB, Reason.GRANT_NOT_PERMITTED),
    ],
)
async def test_a_denial_is_recorded_and_carries_its_decision(audit, fields, caller, reason):
    refusal = await refused(audit, changed(**fields), caller)
    assert (refusal.reason, refusal.metadata["decision_id"]) == (reason, "d1")
    [record] = audit.records
    assert (record.permitted, record.reason, record.entry, record.token_sha256) == (False, reason, "", "")
    assert record.key_id == ""


async def answer(caller, request: pb.IssueTokenRequest) -> bytes:
    return to_status(await refused(AuditTrail(), request, caller)).SerializeToString(deterministic=True)


async def test_an_unknown_role_and_one_that_isnt_permitted_get_the_same_bytes():
    with_it, without_it = listed(GUESTS, roles=ROLES), listed(GUESTS, roles={"guest": JOIN})
    for fields in ({}, {"room": "lobby"}, {"ttl": {"seconds": 86400}}, {"project": "other"}, {"kind": 5}):
        request = changed(role="moderator", **fields)
        assert await answer(with_it, request) == await answer(without_it, request)


async def test_an_unknown_project_and_one_that_isnt_permitted_get_the_same_bytes():
    with_it = listed(
        GUESTS, roles=ROLES, keys=KeySet([Project(n, URL, (key(f"API{n}"),)) for n in ("default", "other")])
    )
    for request in (changed(project="other"), changed(project="other", role="moderator")):
        assert await answer(with_it, request) == await answer(WEB, request)


async def test_a_denial_for_a_missing_field_names_it(audit):
    refusal = await refused(audit, pb.IssueTokenRequest(role="guest", identity="i"))
    assert refusal.reason is Reason.REQUEST_INVALID
    assert [violation.field for violation in refusal.violations] == ["room"]
    assert refusal.metadata == {"decision_id": "d1"}


async def test_a_denial_doesnt_wait_for_its_record():
    assert (await refused(AuditTrail(room=0), changed(room="lobby"))).reason is Reason.ROOM_NOT_PERMITTED


def test_a_caller_that_isnt_listed_has_its_denial_recorded_apart(audit):
    decision = issuer(audit).deny_unlisted(WEB, "BatchIssueTokens")
    [record] = audit.unlisted
    assert (record.decision_id, record.caller, record.method) == (decision, CALLER, "BatchIssueTokens")
    assert (record.permitted, record.reason, record.time) == (False, Reason.CALLER_NOT_LISTED, NOW)
    assert audit.records == []


# Keys


async def test_the_first_active_key_signs(audit):
    keys = keys_of(key("APIold", KeyState.VERIFY_ONLY), key("APInew"), key("APInext"))
    response = await issuer(audit).issue(listed(GUESTS, roles=ROLES, keys=keys), Valid(ASKED))
    read = jwt.decode(response.token, options={"verify_signature": False})
    assert (response.key_id, read["iss"], audit.records[0].key_id) == ("APInew", "APInew", "APInew")


WITHOUT_A_SIGNING_KEY = {
    "revoked and verify-only": keys_of(key("APIa", KeyState.REVOKED), key("APIb", KeyState.VERIFY_ONLY)),
    "out of time": keys_of(replace(key("APIa"), not_after=NOW), replace(key("APIb"), not_before=NOW + 1)),
    "no keys at all": keys_of(),
    "no such project": KeySet([]),
}


@pytest.mark.parametrize("keys", WITHOUT_A_SIGNING_KEY.values(), ids=WITHOUT_A_SIGNING_KEY)
@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_project_without_a_key_that_signs_issues_nothing(audit, keys, validate_only):
    refusal = await refused(audit, changed(validate_only=validate_only), listed(GUESTS, roles=ROLES, keys=keys))
    assert (refusal.reason, refusal.metadata) == (Reason.SIGNING_KEY_MISSING, {"decision_id": "d1"})
    [record] = audit.records  # a decision like every other
    assert (record.permitted, record.reason, record.entry) == (False, Reason.SIGNING_KEY_MISSING, "guests")
    assert (record.key_id, record.token_sha256, record.dry_run) == ("", "", validate_only)


async def test_whether_a_project_has_a_key_is_told_only_to_whom_it_is_permitted(audit):
    refusal = await refused(audit, changed(room="lobby"), listed(GUESTS, roles=ROLES, keys=keys_of()))
    assert refusal.reason is Reason.ROOM_NOT_PERMITTED


# Dry runs


def no_mint(*_: object) -> str:
    raise AssertionError("something is minted")


async def test_with_validate_only_every_check_runs_and_nothing_is_minted(audit):
    minting_nothing = replace(issuer(audit), mint=no_mint)
    response = await minting_nothing.issue(WEB, Valid(changed(validate_only=True)))
    assert response.token == ""
    assert {field.name for field, _ in response.ListFields()} == set(response.DESCRIPTOR.fields_by_name) - {"token"}
    with pytest.raises(AssertionError, match="something is minted"):
        await minting_nothing.issue(WEB, Valid(ASKED))
    [record] = audit.records
    assert (record.dry_run, record.permitted, record.token_sha256, record.key_id) == (True, True, "", KEY.id)


async def test_a_dry_run_answers_as_the_real_thing_would(audit):
    dry = await issuer(audit).issue(WEB, Valid(changed(validate_only=True)))
    real = await issuer(AuditTrail()).issue(WEB, Valid(ASKED))
    real.token = ""
    assert dry == real


@pytest.mark.parametrize("fields", [{"role": "gone"}, {"room": "lobby"}, {"ttl": {"seconds": 3601}}, {"room": "\n"}])
async def test_a_dry_run_is_refused_as_the_real_thing_would_be(audit, fields):
    dry = await refused(audit, changed(**fields, validate_only=True))
    real = await refused(AuditTrail(), changed(**fields))
    assert to_status(dry) == to_status(real)
    assert all(record.dry_run for record in audit.records)


async def test_a_dry_run_stops_when_it_cant_be_recorded():
    assert (await refused(AuditTrail(room=0), changed(validate_only=True))).reason is Reason.AUDIT_UNAVAILABLE


# Sizes

HEAVY = "\x01" * 64 * 1024  # six characters of JSON each, eight of the token


async def test_a_token_over_3_mib_is_refused_before_it_is_minted(audit):
    with pytest.raises(Refusal) as caught:
        await replace(issuer(audit), mint=no_mint).issue(WEB, Valid(changed(metadata="\x01" * 512 * 1024)))
    refusal = caught.value
    assert (refusal.reason, refusal.metadata) == (Reason.RESPONSE_TOO_LARGE, {"decision_id": "d1"})
    assert [(record.permitted, record.reason) for record in audit.records] == [(False, Reason.RESPONSE_TOO_LARGE)]


async def test_a_token_just_under_3_mib_is_issued(audit):
    response = await issuer(audit).issue(WEB, Valid(changed(metadata="\x01" * 392_000)))
    assert 3_130_000 < response.ByteSize() <= 3 * 1024 * 1024


@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_dry_run_has_the_same_bound(audit, validate_only):
    request = changed(metadata="\x01" * 512 * 1024, validate_only=validate_only)
    assert (await refused(audit, request)).reason is Reason.RESPONSE_TOO_LARGE


# Batches


async def batch(audit: AuditTrail, *requests: pb.IssueTokenRequest, caller=WEB) -> pb.BatchIssueTokensResponse:
    return await issue_batch(issuer(audit), caller, pb.BatchIssueTokensRequest(requests=requests))


def outcome(result: pb.IssueTokenResult) -> str:
    """ "issued", or the reason of the entry's error."""
    return "issued" if result.WhichOneof("outcome") == "response" else error_info(result).reason


def error_info(result: pb.IssueTokenResult) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert result.error.details[0].Unpack(info)
    assert info.domain == "livekit-auth"
    return info


async def test_each_entry_of_a_batch_succeeds_or_fails_alone_and_in_order(audit):
    response = await batch(
        audit, ASKED, changed(room="lobby"), changed(room="\n"), changed(role="gone"), pb.IssueTokenRequest(), ASKED
    )
    assert [outcome(result) for result in response.results] == [
        "issued",
        "ROOM_NOT_PERMITTED",
        "REQUEST_INVALID",
        "ROLE_NOT_PERMITTED",
        "REQUEST_INVALID",
        "issued",
    ]


@pytest.mark.parametrize("request_", [ASKED, changed(room="lobby")])
async def test_an_entry_gets_what_issue_token_would_have_returned(request_):
    [result] = (await batch(AuditTrail(), request_)).results
    try:
        alone = await issuer(AuditTrail()).issue(WEB, Valid(request_))
    except Refusal as refusal:
        assert result == pb.IssueTokenResult(error=to_status(refusal))  # noqa: PT017 - either way
    else:
        assert result == pb.IssueTokenResult(response=alone)


async def test_every_decision_of_a_batch_has_its_record(audit):
    response = await batch(audit, ASKED, changed(room="lobby"), changed(identity="b"), changed(room="\n"))
    assert sorted((record.decision_id, record.method, record.permitted) for record in audit.records) == [
        ("d1", "BatchIssueTokens", True),
        ("d2", "BatchIssueTokens", False),
        ("d3", "BatchIssueTokens", True),
        ("d4", "BatchIssueTokens", False),
    ]
    hashes = [hashlib.sha256(r.response.token.encode()).hexdigest() for r in response.results if r.response.token]
    assert hashes == [record.token_sha256 for record in audit.records if record.permitted]


async def test_permits_that_cant_be_recorded_fail_and_take_no_denial_with_them():
    response = await batch(AuditTrail(room=0), ASKED, changed(room="lobby"), changed(room="\n"), ASKED)
    assert [outcome(result) for result in response.results] == [
        "AUDIT_UNAVAILABLE",
        "ROOM_NOT_PERMITTED",
        "REQUEST_INVALID",
        "AUDIT_UNAVAILABLE",
    ]
    assert not any(result.response.token for result in response.results)


async def test_the_permits_of_a_batch_are_recorded_together(monkeypatch):
    together = []

    class Counting(AuditTrail):
        async def record(self, *records):
            together.append(len(records))

    await batch(Counting(), ASKED, changed(room="lobby"), ASKED)
    await batch(Counting(), changed(room="lobby"))
    assert together == [2]


async def test_an_entry_of_a_batch_can_be_a_dry_run(audit):
    response = await batch(audit, ASKED, changed(validate_only=True))
    assert [bool(result.response.token) for result in response.results] == [True, False]
    assert [record.dry_run for record in audit.records] == [False, True]


@pytest.mark.parametrize("count", [0, 501, 5000])
async def test_a_batch_has_1_to_500_entries(audit, count):
    with pytest.raises(Refusal) as caught:
        await batch(audit, *[pb.IssueTokenRequest()] * count)
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert [violation.field for violation in caught.value.violations] == ["requests"]
    assert str(count) in caught.value.message
    assert caught.value.metadata == {"decision_id": "d1"}
    assert [(record.method, record.reason) for record in audit.records] == [("BatchIssueTokens", "REQUEST_INVALID")]


@pytest.mark.parametrize("count", [1, 500])
async def test_a_batch_of_1_or_500_entries_is_taken(audit, count):
    response = await batch(audit, *[ASKED] * count)
    assert [outcome(result) for result in response.results] == ["issued"] * count
    assert len({record.decision_id for record in audit.records}) == count


def sized(size: int) -> list[pb.IssueTokenRequest]:
    """Entries that take this many bytes as a batch."""
    entries = [changed(metadata="x" * 500_000), changed(metadata="x" * 500_000), changed(metadata="x")]
    missing = size - pb.BatchIssueTokensRequest(requests=entries).ByteSize()
    entries[2].metadata = "x" * missing
    missing = size - pb.BatchIssueTokensRequest(requests=entries).ByteSize()
    entries[2].metadata = "x" * (len(entries[2].metadata) + missing)
    assert pb.BatchIssueTokensRequest(requests=entries).ByteSize() == size
    return entries


async def test_a_batch_may_take_1_mib(audit):
    response = await batch(audit, *sized(1024 * 1024))
    assert [outcome(result) for result in response.results] == ["issued"] * 3


async def test_entries_that_would_take_the_response_past_3_mib_fail_before_they_are_minted(audit):
    response = await batch(audit, *[changed(metadata=HEAVY)] * 8, ASKED)
    assert [outcome(result) for result in response.results] == ["issued"] * 5 + ["RESPONSE_TOO_LARGE"] * 3 + ["issued"]
    assert response.ByteSize() <= 3 * 1024 * 1024
    assert sorted(record.permitted for record in audit.records) == [False] * 3 + [True] * 6


async def test_a_response_stays_under_3_mib_whatever_its_entries_ask_for(audit):
    """Errors count as well: one entry nearly fills the response, the others have as much to say as they can."""
    wrong = pb.IssueTokenRequest()
    wrong.grants.video.can_publish_sources.extend(cast("Any", range(100, 140)))
    wrong.room_config.agents.add(agent_name="\n", deployment="\n")
    heavy = changed(metadata="\x01" * 375_000)
    response = await batch(audit, heavy, *[wrong] * 499)
    assert 2_900_000 < response.ByteSize() <= 3 * 1024 * 1024
    outcomes = [outcome(result) for result in response.results]
    assert outcomes[0] == "issued"
    assert outcomes[1] == "REQUEST_INVALID"
    assert set(outcomes[1:]) == {"REQUEST_INVALID", "RESPONSE_TOO_LARGE"}
    named = [error_info(result).metadata["decision_id"] for result in response.results[1:]]
    assert named == [record.decision_id for record in audit.records if not record.permitted]


async def test_500_entries_that_all_fail_stay_within_the_response_too(audit):
    wrong = pb.IssueTokenRequest()
    wrong.grants.video.can_publish_sources.extend(cast("Any", range(100, 140)))
    response = await batch(audit, *[wrong] * 500)
    assert {outcome(result) for result in response.results} == {"REQUEST_INVALID"}
    assert response.ByteSize() <= 3 * 1024 * 1024


async def test_a_batch_of_a_caller_that_may_everything(audit):
    response = await batch(audit, pb.IssueTokenRequest(grants={"sip": {"call": True}}), caller=listed(EVERYTHING))
    assert response.results[0].response.grants.sip.call
