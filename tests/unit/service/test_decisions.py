"""GetDecision: what a denial is explained with, who may read it, and that nobody else learns that it exists."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import decision_pb2, grants_pb2
from livekit_auth_server.core.grants import Grants, VideoGrants
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Lack, Matcher
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.decisions import MAX_BYTES, Decisions, decision_message
from livekit_auth_server.service.validation import Valid
from livekit_auth_server.stores.decisions_in_memory import MemoryDecisions
from support.fakes import NOW, AuditTrail, FakeClock
from support.handlers import issue_batch, issuer, keys_of, listed
from support.policies import ANY, CALLER, JOIN
from support.records import RECORD

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.issue import Issuer

OTHER = "spiffe://example.org/other"
ROLES = {"guest": JOIN, "moderator": Grants(video=VideoGrants(room_join=True, room_admin=True))}
GUESTS = AllowEntry(
    name="guests",
    projects=frozenset({"default"}),
    roles=frozenset({"guest"}),
    rooms=Matcher(prefixes=("consult-",)),
    identities=Matcher(prefixes=("user-",)),
)
BOARD = replace(GUESTS, name="board", rooms=Matcher(exact=frozenset({"board"})), max_ttl=60)
GARBAGE = decision_pb2.Decision(decision_id="d1", workload_id=CALLER, message="x" * MAX_BYTES).SerializeToString()
GOOD: dict[str, Any] = {"role": "guest", "room": "consult-1", "identity": "user-1"}


def ask(**changes: Any) -> pb.IssueTokenRequest:
    return pb.IssueTokenRequest(**{name: value for name, value in {**GOOD, **changes}.items() if value is not None})


def denied_caller(*entries: AllowEntry) -> ListedCaller:
    return listed(*(entries or (GUESTS,)), roles=ROLES)


def reader(policy: CallerPolicy) -> ListedCaller:
    return replace(denied_caller(), policy=policy)


async def denied(made: Issuer, caller: ListedCaller, request: pb.IssueTokenRequest) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await made.issue(caller, Valid(request))
    return caught.value


async def explained(made: Issuer, caller: ListedCaller, decision_id: str) -> decision_pb2.Decision:
    return (await made.decisions.get(caller, Valid(pb.GetDecisionRequest(decision_id=decision_id)))).decision


async def not_found(made: Issuer, caller: ListedCaller, decision_id: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await explained(made, caller, decision_id)
    assert caught.value.reason is Reason.DECISION_NOT_FOUND
    return caught.value


async def explanation(request: pb.IssueTokenRequest, *entries: AllowEntry) -> decision_pb2.Decision:
    made, caller = issuer(AuditTrail()), denied_caller(*entries)
    refusal = await denied(made, caller, request)
    return await explained(made, caller, refusal.metadata["decision_id"])


# What it says


async def test_a_denial_is_explained_to_the_caller_that_got_it():
    made, caller = issuer(AuditTrail()), denied_caller(GUESTS, BOARD)
    refusal = await denied(
        made,
        caller,
        ask(
            room="lobby", identity="admin", ttl=Duration(seconds=90), request_reason="TICKET-1", metadata="m", name="n"
        ),
    )
    assert await explained(made, caller, refusal.metadata["decision_id"]) == decision_pb2.Decision(
        decision_id="d1",
        decide_time={"seconds": NOW},
        workload_id=CALLER,
        method="IssueToken",
        reason="ROOM_NOT_PERMITTED",
        message=refusal.message,
        policy_revision="r1",
        project="default",
        role="guest",
        room="lobby",
        identity="admin",
        ttl={"seconds": 90},
        request_reason="TICKET-1",
        shortfalls=[
            {
                "entry": "guests",
                "lacks": [
                    {"reason": "ROOM_NOT_PERMITTED", "message": refusal.message},
                    {
                        "reason": "IDENTITY_NOT_PERMITTED",
                        "message": "this identity isn't one that you may issue this access for",
                    },
                ],
            },
            {
                "entry": "board",
                "lacks": [
                    {"reason": "ROOM_NOT_PERMITTED", "message": refusal.message},
                    {
                        "reason": "IDENTITY_NOT_PERMITTED",
                        "message": "this identity isn't one that you may issue this access for",
                    },
                    {"reason": "TTL_NOT_PERMITTED", "message": "the ttl may be at most 60 s here"},
                ],
            },
        ],
        shortfall_count=2,
    )


async def test_a_request_without_ttl_is_explained_without_one():
    assert not (await explanation(ask(room="lobby"))).HasField("ttl")


async def test_spelled_out_grants_are_not_kept():
    grants = grants_pb2.Grants(video=grants_pb2.VideoGrant(room_join=True, room_admin=True))
    decision = await explanation(ask(role=None, grants=grants, metadata="MARKER", attributes={"k": "MARKER"}))
    assert (decision.reason, decision.role) == ("GRANT_NOT_PERMITTED", "")
    assert b"MARKER" not in decision.SerializeToString()
    assert b"roomAdmin" not in decision.SerializeToString()


async def test_a_role_that_exists_is_explained_as_one_that_does_not():
    existing = await explanation(ask(role="moderator", room="lobby"), GUESTS, BOARD)
    unknown = await explanation(ask(role="moderatxr", room="lobby"), GUESTS, BOARD)
    text = str(existing).replace("moderator", "X")
    assert text == str(unknown).replace("moderatxr", "X")
    assert [[lack.reason for lack in one.lacks] for one in existing.shortfalls] == [["ROLE_NOT_PERMITTED"]] * 2


async def test_a_project_without_a_signing_key_is_explained_without_shortfalls():
    made, caller = issuer(AuditTrail()), listed(GUESTS, roles=ROLES, keys=keys_of())
    refusal = await denied(made, caller, ask())
    decision = await explained(made, caller, refusal.metadata["decision_id"])
    assert (decision.reason, decision.message, decision.shortfall_count) == (
        "SIGNING_KEY_MISSING",
        refusal.message,
        0,
    )


async def test_an_entry_of_a_batch_is_explained_as_a_call_of_its_own_is():
    made, caller = issuer(AuditTrail()), denied_caller()
    response = await issue_batch(made, caller, pb.BatchIssueTokensRequest(requests=[ask(), ask(room="lobby")]))
    assert response.results[0].response.token
    decision = await explained(made, caller, "d2")
    assert (decision.method, decision.reason, decision.room) == ("BatchIssueTokens", "ROOM_NOT_PERMITTED", "lobby")


async def test_a_broken_field_rule_is_explained_without_what_was_asked_for():
    made, caller = issuer(AuditTrail()), denied_caller()
    with pytest.raises(Refusal) as caught:
        Valid(ask(room="a\0b", request_reason="TICKET-1"))
    refusal = made.deny_invalid(caller, "IssueToken", caught.value)
    decision = await explained(made, caller, refusal.metadata["decision_id"])
    assert decision == decision_pb2.Decision(
        decision_id="d1",
        decide_time={"seconds": NOW},
        workload_id=CALLER,
        method="IssueToken",
        reason="REQUEST_INVALID",
        message=refusal.message,
        policy_revision="r1",
    )
    assert refusal.violations == caught.value.violations


def test_an_explanation_keeps_its_limits():
    lack = Lack(Reason.ROOM_NOT_PERMITTED, "é" * 200)
    many = [(f"entry {number}", [lack] * 20) for number in range(20)]
    longest = replace(RECORD, caller="spiffe://" + "a" * 2039, room="é" * 128, identity="é" * 128)
    decision = decision_message(replace(longest, request_reason="é" * 128), "x" + "é" * 600, many)
    assert len(decision.message.encode()) == 1023
    assert len(decision.shortfalls[0].lacks) == 16
    assert len(decision.shortfalls[0].lacks[0].message.encode()) == 256
    assert decision.shortfall_count == 20
    assert MAX_BYTES - 16 * 300 < decision.ByteSize() <= MAX_BYTES
    short = [(f"entry {number}", [Lack(Reason.TTL_NOT_PERMITTED, "m")] * 20) for number in range(20)]
    decision = decision_message(RECORD, "m", short)
    assert [one.entry for one in decision.shortfalls] == [f"entry {number}" for number in range(16)]
    assert {len(one.lacks) for one in decision.shortfalls} == {16}


# Who may read it


async def test_another_caller_gets_the_answer_of_a_decision_that_does_not_exist():
    made = issuer(AuditTrail())
    await denied(made, denied_caller(), ask(room="lobby"))
    other = reader(CallerPolicy(OTHER, (GUESTS,), verify_webhooks=frozenset({"default"})))
    hidden, unknown = await not_found(made, other, "d1"), await not_found(made, other, "d2")
    assert (hidden.message, hidden.metadata) == (unknown.message, unknown.metadata)


async def test_a_caller_reads_the_decisions_of_its_projects_only():
    made, caller = issuer(AuditTrail()), denied_caller()
    await denied(made, caller, ask(room="lobby"))
    await denied(made, caller, ask(project="beta"))
    may = reader(CallerPolicy(OTHER, read_decisions=frozenset({"default"})))
    assert (await explained(made, may, "d1")).workload_id == CALLER
    await not_found(made, may, "d2")


async def test_a_decision_without_a_project_is_its_callers_alone():
    made = issuer(AuditTrail())
    caller = denied_caller(GUESTS, replace(GUESTS, name="b", projects=frozenset({"beta"})))
    refusal = await denied(made, caller, ask())
    assert refusal.reason is Reason.PROJECT_REQUIRED
    assert (await explained(made, caller, "d1")).project == ""
    everything = reader(CallerPolicy(OTHER, read_decisions=frozenset({"default", "beta"})))
    await not_found(made, everything, "d1")


async def test_a_permission_that_is_withdrawn_while_the_store_is_asked_no_longer_counts():
    made = issuer(AuditTrail())
    await denied(made, denied_caller(), ask(room="lobby"))
    now = reader(CallerPolicy(OTHER))
    before = replace(reader(CallerPolicy(OTHER, read_decisions=frozenset({"default"}))), again=lambda _: now)
    await not_found(made, before, "d1")


@pytest.mark.parametrize("kept", [b"\xff", b"", GARBAGE, decision_pb2.Decision(decision_id="d2").SerializeToString()])
async def test_what_a_shared_store_has_instead_of_the_decision_is_not_found(kept):
    store = MemoryDecisions(FakeClock())
    store.keep(CALLER, "d1", kept)
    decisions = Decisions(store)
    with pytest.raises(Refusal) as caught:
        await decisions.get(denied_caller(), Valid(pb.GetDecisionRequest(decision_id="d1")))
    assert caught.value.reason is Reason.DECISION_NOT_FOUND


async def test_a_permitted_request_and_an_unlisted_caller_leave_nothing_to_read():
    made, caller = issuer(AuditTrail()), denied_caller(replace(GUESTS, identities=ANY))
    await made.issue(caller, Valid(ask()))
    unlisted = made.deny_unlisted(caller, "IssueToken")
    for decision_id in ("d1", unlisted):
        await not_found(made, caller, decision_id)
