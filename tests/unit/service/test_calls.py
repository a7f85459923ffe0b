"""A call from bytes to bytes: who calls comes first, what is asked second, and no fault tells its cause."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.rpc.error_details_pb2 import BadRequest
from structlog.testing import capture_logs

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.identity import Identified
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.revocation import NEVER, DenyList
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service.admission import CallContext, ListedCaller
from livekit_auth_server.service.budget import Budget
from livekit_auth_server.service.caller import get_caller
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.decoding import decoded
from livekit_auth_server.service.handlers import handlers
from livekit_auth_server.service.methods import BATCH_ISSUE_TOKENS, GET_CALLER, ISSUE_TOKEN, VERIFY_TOKEN
from livekit_auth_server.service.state import InForce, State
from livekit_auth_server.service.status import to_status
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.service.unknown_fields import MAX_FIELDS
from livekit_auth_server.service.validation import Valid
from livekit_auth_server.service.version import VERSION
from livekit_auth_server.service.webhooks import Webhooks
from livekit_auth_server.stores.acknowledgements_in_memory import MemoryAckStore
from support.fakes import NOW, AuditTrail, CallLog, FakeClock, FakeIdentifier
from support.handlers import KEY, issuer, keys_of, state_of
from support.policies import CALLER, EVERYTHING, JOIN, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from livekit_auth_server.service.limits import RateLimits
    from livekit_auth_server.service.method import Served
    from livekit_auth_server.service.ports import FinishedCall

CONTEXT = CallContext(b"leaf", b"chain", "ipv4:192.0.2.1:4711")
TRACE = "0af7651916cd43dd8448eb211c80319c"
STRANGER = Identified(WorkloadId.parse("spiffe://example.org/stranger"), "2b", NOW - 60, NOW + 3600)
ASKED = pb.IssueTokenRequest(role="guest")
MARKER = "MARKER: the inside of the server"


@dataclass
class Handler:
    """A handler that remembers its callers and answers, or fails."""

    answer: pb.VerifyTokenResponse = field(default_factory=pb.VerifyTokenResponse)
    failure: BaseException | None = None
    callers: list[ListedCaller] = field(default_factory=list)
    requests: list[pb.VerifyTokenRequest] = field(default_factory=list)

    async def __call__(self, caller: ListedCaller, request: Valid[pb.VerifyTokenRequest]) -> pb.VerifyTokenResponse:
        self.callers.append(caller)
        self.requests.append(request.message)
        if self.failure is not None:
            raise self.failure
        return self.answer

    @property
    def method(self) -> Served:
        return VERIFY_TOKEN.served_by(self)


OPEN = GET_CALLER.served_by(get_caller)
GOOD = pb.VerifyTokenRequest(token="a.b.c").SerializeToString()


def calls(state: State | None = None, log: CallLog | None = None) -> tuple[Calls, CallLog]:
    log = log or CallLog()
    return Calls(InForce(state or state_of(EVERYTHING)), FakeClock(step=0.5), log), log


def stranger() -> State:
    return replace_identifier(state_of(EVERYTHING), FakeIdentifier(STRANGER))


def replace_identifier(state: State, identifier: FakeIdentifier) -> State:
    return State(state.policy, state.keys, identifier)


def served(audit: AuditTrail) -> tuple[Served, ...]:
    """The service's own methods; the webhooks aren't asked here."""
    return handlers(issuer(audit), Webhooks(MemoryAckStore(FakeClock(), 60, 100), 1024), Turns(FakeClock()))


async def refused(
    state: State | None, method: Any, data: bytes, context: CallContext = CONTEXT
) -> tuple[Refusal, FinishedCall]:
    """How the call is refused, and what the observer was told of it."""
    runner, log = calls(state)
    with pytest.raises(Refusal) as caught:
        await runner.run(method, context, data)
    [finished] = log.calls
    return caught.value, finished


# A call that succeeds


async def test_a_handler_gets_the_caller_and_the_request():
    handler = Handler(pb.VerifyTokenResponse(room="r"))
    runner, log = calls()
    traced = replace(CONTEXT, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    data = await runner.run(handler.method, traced, GOOD)
    assert pb.VerifyTokenResponse.FromString(data).room == "r"
    assert handler.requests == [pb.VerifyTokenRequest(token="a.b.c")]
    [caller] = handler.callers
    assert (caller.policy.id, caller.now, caller.trace_id) == (CALLER, NOW, TRACE)
    assert (caller.state_policy, caller.keys) == (runner.in_force.state.policy, runner.in_force.state.keys)
    [finished] = log.calls
    assert (finished.method, finished.caller, finished.code, finished.reason) == ("VerifyToken", CALLER, "OK", "")
    assert (finished.peer, finished.trace_id, finished.seconds) == (CONTEXT.peer, TRACE, 0.5)


async def test_a_call_sees_one_state_even_if_it_is_replaced_meanwhile():
    handler = Handler()
    runner, _ = calls()
    before = runner.in_force.state.policy

    async def replacing(caller: ListedCaller, request: Valid[pb.VerifyTokenRequest]) -> pb.VerifyTokenResponse:
        runner.in_force.replace_policy(policy_of()[0])
        runner.in_force.replace_keys(keys_of(KEY, project="other"))
        return await handler(caller, request)

    await runner.run(VERIFY_TOKEN.served_by(replacing), CONTEXT, GOOD)
    assert handler.callers[0].state_policy is before
    assert set(handler.callers[0].keys.projects) == {"default"}


class LookedUp(dict[str, Any]):
    """Callers that can be looked up and not gone through."""

    def __iter__(self):
        raise AssertionError("a call goes through all callers")

    items = values = keys = __iter__


async def test_a_caller_is_looked_up_and_not_searched():
    state = state_of(EVERYTHING)
    policy = replace(state.policy, callers=LookedUp(state.policy.callers))
    runner, _ = calls(State(policy, state.keys, state.identifier))
    await runner.run(Handler().method, CONTEXT, GOOD)


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        ("", ""),
        (TRACE, ""),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", ""),
        (f"00-{TRACE}-b7ad6b7169203331-01\n", ""),
        (f"00-{TRACE}-b7ad6b7169203331-01-extra", ""),
        (f'00-{TRACE}-b7ad6b7169203331-01","x":"', ""),
        ("x" * 10_000, ""),
    ],
)
async def test_a_trace_id_is_32_hexadecimal_digits_or_nothing(traceparent, trace_id):
    handler = Handler()
    runner, log = calls()
    await runner.run(handler.method, replace(CONTEXT, traceparent=traceparent), GOOD)
    assert (handler.callers[0].trace_id, log.calls[0].trace_id) == (trace_id, trace_id)


# Who calls comes before what is asked


@pytest.mark.parametrize("data", [GOOD, b"", b"\xff\xff", b"x" * 10_000, b"\xf8\xff\x03\x01"])
async def test_an_unlisted_caller_learns_nothing_about_its_request(data):
    handler = Handler()
    refusal, finished = await refused(stranger(), handler.method, data)
    assert refusal.reason is Reason.CALLER_NOT_LISTED
    assert refusal.message == "the policy doesn't list spiffe://example.org/stranger"
    assert (refusal.metadata, refusal.violations, handler.callers) == ({}, (), [])
    assert (finished.code, finished.reason) == ("PERMISSION_DENIED", "CALLER_NOT_LISTED")
    assert (finished.caller, finished.listed) == ("spiffe://example.org/stranger", False)


async def test_the_observer_is_told_whether_the_policy_lists_the_caller():
    runner, log = calls()
    await runner.run(Handler().method, CONTEXT, GOOD)
    strange, strangers = calls(stranger())
    await strange.run(OPEN, CONTEXT, b"")
    assert ([call.listed for call in log.calls], [call.listed for call in strangers.calls]) == ([True], [False])


async def test_a_request_is_decoded_when_there_is_room_for_it():
    """By the state of that moment: the caller was revoked while its request waited."""
    handler, room = Handler(), Budget(100_000, 100_000)
    in_force = InForce(state_of(EVERYTHING))
    runner = Calls(in_force, FakeClock(), CallLog(), room=room)
    batch = replace(BATCH_ISSUE_TOKENS, queued=False).served_by(cast("Any", handler))
    await room.take("another", 100_000)
    large = pb.BatchIssueTokensRequest(requests=[pb.IssueTokenRequest()] * 500).SerializeToString()
    waiting = asyncio.create_task(runner.run(batch, CONTEXT, large))
    await asyncio.sleep(0)
    assert room.waiting == {"(unlisted)": 1}
    await runner.run(batch, CONTEXT, pb.BatchIssueTokensRequest(requests=[ASKED]).SerializeToString())
    in_force.replace_deny_list(DenyList({CALLER: NEVER}))
    room.give("another", 100_000)
    with pytest.raises(Refusal) as caught:
        await waiting
    assert caught.value.reason is Reason.CERTIFICATE_REVOKED
    assert (len(handler.requests), room.heaviest()) == (1, "")


async def test_a_request_waits_for_room_only_so_long(monkeypatch):
    monkeypatch.setattr("livekit_auth_server.service.calls.PATIENCE", 0.01)
    room = Budget(1, 1)
    await room.take("another", 1)
    log = CallLog()
    runner = Calls(InForce(state_of(EVERYTHING)), FakeClock(), log, room=room)
    with pytest.raises(Refusal) as caught:
        await runner.run(Handler().method, CONTEXT, b"x" * 50_000, runner.admit(CONTEXT))
    assert (caught.value.reason, caught.value.retry_after) == (Reason.OVERLOADED, 1.0)
    assert log.calls[0].overload == "request_memory"
    assert (log.calls[0].caller, log.calls[0].listed) == (CALLER, True)


async def test_an_unlisted_caller_that_wants_a_token_is_recorded_before_its_request_is_read():
    audit = AuditTrail()
    runner = Calls(InForce(stranger()), FakeClock(), CallLog(), deny_unlisted=issuer(audit).deny_unlisted)
    for one in served(audit):
        if not one.method.open_to_all:
            with pytest.raises(Refusal) as caught:
                await runner.run(one, CONTEXT, b"\xff")
            assert caught.value.reason is Reason.CALLER_NOT_LISTED
            assert set(caught.value.metadata) == ({"decision_id"} if one.method.audited else set())
    assert [(record.method, record.caller) for record in audit.unlisted] == [
        ("IssueToken", "spiffe://example.org/stranger"),
        ("BatchIssueTokens", "spiffe://example.org/stranger"),
    ]
    assert audit.records == []


@pytest.mark.parametrize("reason", [Reason.CERTIFICATE_INVALID, Reason.CERTIFICATE_EXPIRED])
@pytest.mark.parametrize("method", [Handler().method, OPEN])
async def test_nobody_is_looked_up_without_an_identity(method, reason):
    state = replace_identifier(state_of(EVERYTHING), FakeIdentifier(refusal=Refusal(reason, "no")))
    refusal, finished = await refused(state, method, b"\xff")
    assert refusal.reason is reason
    assert (finished.caller, finished.code) == ("", "UNAUTHENTICATED")


async def test_get_caller_answers_an_unlisted_caller_with_its_own_identity():
    runner, log = calls(stranger())
    answer = pb.GetCallerResponse.FromString(await runner.run(OPEN, CONTEXT, b""))
    assert (answer.workload_id, answer.listed) == ("spiffe://example.org/stranger", False)
    assert log.calls[0].code == "OK"


async def test_get_caller_tells_a_listed_caller_the_revision():
    runner, _ = calls()
    answer = pb.GetCallerResponse.FromString(await runner.run(OPEN, CONTEXT, b""))
    assert (answer.workload_id, answer.listed, answer.policy_revision) == (CALLER, True, "r1")


@pytest.mark.parametrize("state", [stranger(), state_of(EVERYTHING)])
async def test_get_caller_takes_no_broken_request_either(state):
    assert (await refused(state, OPEN, b"\xff"))[0].reason is Reason.REQUEST_MALFORMED
    assert (await refused(state, OPEN, b"\x08\x01"))[0].reason is Reason.FIELD_UNKNOWN


async def test_a_request_that_breaks_a_rule_never_reaches_its_handler():
    handler = Handler()
    refusal, _ = await refused(None, handler.method, pb.VerifyTokenRequest().SerializeToString())
    assert (refusal.reason, [violation.field for violation in refusal.violations]) == (
        Reason.REQUEST_INVALID,
        ["token"],
    )
    assert handler.requests == []


async def test_a_caller_that_isnt_listed_any_more_hears_nothing_of_its_request():
    """Authorised before validated, as AIP-211 has it: the policy was replaced while the call was charged."""
    in_force = InForce(state_of(EVERYTHING))
    runner = Calls(in_force, FakeClock(), CallLog(), cast("RateLimits", Delisting(in_force)))
    with pytest.raises(Refusal) as caught:
        await runner.run(Handler().method, CONTEXT, pb.VerifyTokenRequest().SerializeToString())
    assert caught.value.reason is Reason.CALLER_NOT_LISTED


@dataclass
class Delisting:
    """Limits that count nothing; meanwhile the policy stops listing the caller."""

    in_force: InForce

    async def charge(self, *_: object) -> None:
        self.in_force.replace_policy(replace(self.in_force.state.policy, callers={}))


# What is asked


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a\xff",
        b"\x0a\x05ab",
        b"\x0a\x02\xff\xfe",  # a string that isn't UTF-8
        b"\x0b",  # a group that never ends
        b"\x0a",
        GOOD[:-1],
        b"\x00",
        b'{"token": "MARKER"}',
        b"MARKER" * 1000,
    ],
)
async def test_bytes_that_arent_the_request_are_refused_without_the_parsers_words(data):
    refusal, finished = await refused(None, Handler().method, data)
    assert refusal.reason is Reason.REQUEST_MALFORMED
    assert refusal.message == "the request isn't a livekit_auth.v1.VerifyTokenRequest"
    assert refusal.__suppress_context__
    assert (refusal.metadata, refusal.violations) == ({}, ())
    assert finished.code == "INVALID_ARGUMENT"


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def sub(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


NEW = sub(999, b"x")
ROLE = pb.IssueTokenRequest(role="guest").SerializeToString()
UNKNOWN: Mapping[str, tuple[type[Message], bytes, str, int]] = {
    "at the top": (pb.IssueTokenRequest, ROLE + NEW, "", 999),
    "at the top and nothing else": (pb.GetCallerRequest, NEW, "", 999),
    "as a number": (pb.IssueTokenRequest, ROLE + varint(999 << 3) + b"\x01", "", 999),
    "in fixed size": (pb.IssueTokenRequest, ROLE + varint(999 << 3 | 5) + b"\x01\x02\x03\x04", "", 999),
    "as a group": (pb.IssueTokenRequest, ROLE + varint(999 << 3 | 3) + varint(999 << 3 | 4), "", 999),
    "an empty one": (pb.IssueTokenRequest, ROLE + sub(999, b""), "", 999),
    "in the ttl": (pb.IssueTokenRequest, ROLE + sub(9, b"\x08\x01" + NEW), "ttl", 999),
    "in the grants": (pb.IssueTokenRequest, sub(7, NEW), "grants", 999),
    "in the video grants": (pb.IssueTokenRequest, sub(7, sub(1, NEW)), "grants.video", 999),
    "in an agent of the room": (pb.IssueTokenRequest, ROLE + sub(11, sub(9, NEW)), "room_config.agents[0]", 999),
    "in the second agent": (
        pb.IssueTokenRequest,
        ROLE + sub(11, sub(9, b"") + sub(9, NEW)),
        "room_config.agents[1]",
        999,
    ),
    "deep in an egress": (
        pb.IssueTokenRequest,
        ROLE + sub(11, sub(5, sub(1, sub(5, NEW)))),
        "room_config.egress.room.advanced",
        999,
    ),
    "in an attribute": (pb.IssueTokenRequest, ROLE + sub(5, sub(1, b"k") + sub(2, b"v") + NEW), "attributes[0]", 999),
    "in a tag of the room": (
        pb.IssueTokenRequest,
        ROLE + sub(11, sub(11, sub(1, b"k") + NEW)),
        "room_config.tags[0]",
        999,
    ),
    "in an entry of a batch": (pb.BatchIssueTokensRequest, sub(1, ROLE) + sub(1, ROLE + NEW), "requests[1]", 999),
    "a known field of another type": (pb.IssueTokenRequest, ROLE + varint(8 << 3) + b"\x01", "", 8),
    "a field that was never used": (pb.IssueTokenRequest, ROLE + sub(99, b"x"), "", 99),
}


@pytest.mark.parametrize(("request_type", "data", "path", "number"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_field_is_refused_and_named_wherever_it_is(request_type, data, path, number):
    with pytest.raises(Refusal) as caught:
        decoded(request_type, data, 1 << 20)
    assert caught.value.reason is Reason.FIELD_UNKNOWN
    assert caught.value.metadata == {"field_path": path, "field_number": str(number), "server_version": VERSION}
    for named in (f"field {number} of {path or 'the request'}", VERSION):
        assert named in caught.value.message


def test_an_unknown_field_after_too_many_others_is_refused_without_its_name():
    with pytest.raises(Refusal) as caught:
        decoded(pb.IssueTokenRequest, sub(5, b"") * MAX_FIELDS + NEW, 1 << 20)
    assert caught.value.reason is Reason.FIELD_UNKNOWN
    assert caught.value.metadata == {"server_version": VERSION}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ROLE,
        sub(8, b"first") + sub(8, b"r") + sub(6, b"guest"),  # the last of one field counts
        sub(6, b"guest") + varint(13 << 3) + b"\x00",  # a default, written out
        sub(7, sub(1, b"\x08\x01")) + sub(7, sub(1, b"\x40\x01")),  # two parts of one message
        sub(7, sub(1, sub(5, b"\x01\x02"))),  # packed
        sub(7, sub(1, b"\x28\x01\x28\x02")),  # not packed
        ROLE + sub(5, b""),  # an attribute without a key
        ROLE + varint(10 << 3) + varint(99),  # an enum value is for the rules to judge
    ],
)
def test_every_encoding_of_known_fields_is_taken(data):
    assert isinstance(decoded(pb.IssueTokenRequest, data, 1 << 20), pb.IssueTokenRequest)


def test_deeply_nested_bytes_are_malformed_and_no_fault():
    data = NEW
    for _ in range(500):
        data = sub(7, data)
    with pytest.raises(Refusal):
        decoded(pb.IssueTokenRequest, data, 1 << 20)


def test_a_message_that_breaks_rules_is_refused_with_each():
    with pytest.raises(Refusal) as caught:
        Valid(pb.IssueTokenRequest(room="\n", kind=cast("Any", 9)))
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert [violation.field for violation in caught.value.violations] == ["access", "room", "kind"]
    Valid(pb.IssueTokenRequest(role="guest"))


def test_an_answer_doesnt_grow_with_the_number_of_mistakes():
    """The status travels in trailers, of which clients take 8 KiB."""
    request = pb.IssueTokenRequest()
    request.grants.video.can_publish_sources.extend(cast("Any", range(100, 50_000)))
    for _ in range(16):
        request.room_config.agents.add(agent_name="\n" * 300, deployment="\n" * 300, restart_policy=99)
    egress = request.room_config.egress.participant.segment_outputs.add()
    egress.live_playlist_name = egress.playlist_name = "\n"
    with pytest.raises(Refusal) as caught:
        Valid(request)
    status = to_status(caught.value)
    violations = BadRequest()
    assert status.details[1].Unpack(violations)
    assert len(violations.field_violations) == 16
    assert status.ByteSize() < 4096


# Faults


async def test_an_unexpected_fault_tells_nothing_of_its_cause():
    with capture_logs() as logs:
        refusal, finished = await refused(None, Handler(failure=RuntimeError(MARKER)).method, GOOD)
    assert refusal.reason is Reason.INTERNAL
    assert (refusal.metadata, refusal.violations) == ({}, ())
    status = to_status(refusal)
    assert "MARKER" not in str(status)
    assert "RuntimeError" not in str(status)
    assert refusal.__suppress_context__
    assert (finished.code, finished.reason, finished.caller) == ("INTERNAL", "INTERNAL", CALLER)
    assert "MARKER" not in finished.message
    [logged] = logs  # where the operator finds it
    assert (logged["event"], logged["log_level"], logged["exc_info"]) == ("unexpected fault", "error", True)


@pytest.mark.parametrize(
    "failure", [KeyError(MARKER), ValueError(MARKER), AssertionError(MARKER), TimeoutError(MARKER)]
)
@pytest.mark.parametrize("where", ["identifier", "handler"])
async def test_a_fault_is_internal_wherever_it_is(where, failure):
    state = state_of(EVERYTHING)
    if where == "identifier":
        state = replace_identifier(state, FakeIdentifier(refusal=failure))
    with capture_logs():
        refusal, _ = await refused(state, Handler(failure=failure).method, GOOD)
    assert (refusal.reason, "MARKER" in str(refusal)) == (Reason.INTERNAL, False)


async def test_an_answer_that_cant_be_encoded_is_a_fault():
    async def answers_nonsense(_caller, _request):
        return MARKER

    with capture_logs():
        refusal, _ = await refused(None, VERIFY_TOKEN.served_by(answers_nonsense), GOOD)
    assert refusal.reason is Reason.INTERNAL


async def test_a_refusal_reaches_the_caller_and_the_observer_as_it_is():
    denied = Refusal(Reason.ROOM_NOT_PERMITTED, "not this room", {"decision_id": "d1"})
    refusal, finished = await refused(None, Handler(failure=denied).method, GOOD)
    assert refusal is denied
    assert (finished.code, finished.reason, finished.message, finished.decision_id) == (
        "PERMISSION_DENIED",
        "ROOM_NOT_PERMITTED",
        "not this room",
        "d1",
    )


@pytest.mark.parametrize("stop", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_a_cancelled_call_is_told_and_stays_cancelled(stop):
    runner, log = calls()
    with pytest.raises(stop):
        await runner.run(Handler(failure=stop()).method, CONTEXT, GOOD)
    assert [(call.code, call.reason) for call in log.calls] == [("CANCELLED", "")]


async def test_a_call_that_is_cancelled_while_it_waits_is_told():
    waiting = asyncio.Event()

    async def waits(_caller, _request):
        waiting.set()
        await asyncio.sleep(60)

    runner, log = calls()
    task = asyncio.create_task(runner.run(VERIFY_TOKEN.served_by(waits), CONTEXT, GOOD))
    await asyncio.wait_for(waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log.calls[0].code == "CANCELLED"


class BrokenObserver(CallLog):
    def finished(self, call: FinishedCall) -> None:
        super().finished(call)
        raise OSError(MARKER)


async def test_an_observer_that_fails_changes_no_answer():
    runner, log = calls(log=BrokenObserver())
    with capture_logs() as logs:
        assert await runner.run(Handler().method, CONTEXT, GOOD) == b""
    assert [entry["event"] for entry in logs] == ["the observer failed"]
    assert len(log.calls) == 1


async def test_an_observer_that_fails_changes_no_refusal():
    runner, _ = calls(stranger(), BrokenObserver())
    with capture_logs(), pytest.raises(Refusal) as caught:
        await runner.run(Handler().method, CONTEXT, GOOD)
    assert caught.value.reason is Reason.CALLER_NOT_LISTED


async def test_a_log_that_cant_be_written_doesnt_become_the_answer(monkeypatch):
    def broken(*_args, **_fields):
        raise BrokenPipeError(MARKER)

    monkeypatch.setattr("livekit_auth_server.service.calls._log.exception", broken)
    refusal, _ = await refused(None, Handler(failure=RuntimeError(MARKER)).method, GOOD)
    assert refusal.reason is Reason.INTERNAL


# With the real handlers


async def test_a_token_is_issued_from_bytes_to_bytes():
    audit = AuditTrail()
    issue = ISSUE_TOKEN.served_by(issuer(audit).issue)
    runner, log = calls(state_of(replace(EVERYTHING, roles=frozenset({"guest"})), roles={"guest": JOIN}))
    request = pb.IssueTokenRequest(role="guest", room="r", identity="i")
    answer = pb.IssueTokenResponse.FromString(await runner.run(issue, CONTEXT, request.SerializeToString()))
    assert answer.token.count(".") == 2
    assert [record.caller for record in audit.records] == [CALLER]
    assert (log.calls[0].audited, log.calls[0].code) == (True, "OK")


async def test_a_denial_tells_the_observer_its_decision():
    issue = ISSUE_TOKEN.served_by(issuer(AuditTrail()).issue)
    refusal, finished = await refused(None, issue, pb.IssueTokenRequest(role="gone").SerializeToString())
    assert refusal.metadata["decision_id"] == finished.decision_id == "d1"


def test_a_request_over_its_bound_is_refused_before_it_is_parsed():
    data = pb.VerifyTokenRequest(token="x" * 100).SerializeToString()
    assert decoded(pb.VerifyTokenRequest, data, len(data)).token
    for over in (data + b"\x00", b"\xff" * (len(data) + 1)):
        with pytest.raises(Refusal) as caught:
            decoded(pb.VerifyTokenRequest, over, len(data))
        assert caught.value.reason is Reason.REQUEST_INVALID
