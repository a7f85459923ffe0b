"""What waits decides on the state of its own moment: batches in their queue, and tokens whose record is written."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.identity import Identified
from livekit_auth_server.core.keys import KeyState
from livekit_auth_server.core.limits import Limit
from livekit_auth_server.core.policy import AllowEntry, Matcher
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.revocation import NEVER, DenyList
from livekit_auth_server.core.tokens import MAX_UNSIGNED
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service import batches as batches_module
from livekit_auth_server.service.admission import CallContext
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.decoding import decoded
from livekit_auth_server.service.handlers import handlers
from livekit_auth_server.service.limits import RateLimits
from livekit_auth_server.service.ports import AckStore, LimitStore
from livekit_auth_server.service.state import InForce, State
from livekit_auth_server.service.status import to_status
from livekit_auth_server.service.turns import PLACES, Turns
from livekit_auth_server.service.webhooks import Webhooks
from support.fakes import NOW, AuditTrail, CallLog, FakeClock, FakeIdentifier, LimitLog
from support.handlers import KEY, SECRET, issuer, key, keys_of
from support.jws import sign
from support.policies import ANY, CALLER, JOIN, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.core.limits import Charge, Excess

CONTEXT = CallContext(b"leaf", b"chain")
OTHER = Identified(WorkloadId.parse("spiffe://example.org/other"), "2b", NOW - 60, NOW + 3600)
GUESTS = AllowEntry("guests", frozenset({"default"}), frozenset({"guest"}), rooms=ANY, identities=ANY)
ASKED = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
BOARD = pb.IssueTokenRequest(role="guest", room="board", identity="user-1")


class Gate:
    """Stops whoever passes while it is shut."""

    def __init__(self) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()

    async def passed(self) -> None:
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


@dataclass
class SlowTrail(AuditTrail):
    """A trail whose records are written when their gate opens; no gate is an open one."""

    gates: list[Gate] = field(default_factory=list)
    denied: asyncio.Event = field(default_factory=asyncio.Event)

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        super().deny(record, listed=listed)
        self.denied.set()

    async def record(self, *records: AuditRecord) -> None:
        await super().record(*records)
        if self.gates:
            await self.gates.pop(0).passed()


@dataclass
class SlowStore(LimitStore):
    """Counts what is charged, once its gate is open."""

    gate: Gate | None = None
    charged: list[Sequence[Charge]] = field(default_factory=list)

    async def take(self, _caller: str, charges: Sequence[Charge]) -> Excess | None:
        self.charged.append(charges)
        if self.gate is not None:
            await self.gate.passed()
        return None


@dataclass
class SlowAcks(AckStore):
    """Knows no acknowledgement, once its gate is open."""

    gate: Gate | None = None

    async def is_acknowledged(self, *_: object) -> bool:
        if self.gate is not None:
            await self.gate.passed()
        return False

    async def acknowledge(self, *_: object) -> int:
        return 0


class World:
    """The service with everything replaced that it waits for. `first` is a batch that others wait behind."""

    first: asyncio.Task[pb.BatchIssueTokensResponse]

    def __init__(self, *gates: Gate, limits: tuple[Limit, ...] = ()) -> None:
        self.clock, self.audit, self.store = FakeClock(step=0.5), SlowTrail(gates=list(gates)), SlowStore()
        self.in_force = InForce(State(self.policy(GUESTS, limits=limits), keys_of(KEY), FakeIdentifier()))
        rates = RateLimits(self.store, self.store, LimitLog())
        made = issuer(self.audit)
        self.calls = Calls(self.in_force, self.clock, CallLog(), rates, made.deny_unlisted, None, made.deny_invalid)
        self.turns = Turns(self.clock)
        self.acknowledged = SlowAcks()
        hooks = Webhooks(self.acknowledged, 1024)
        self.methods = {one.method.name: one for one in handlers(made, hooks, self.turns)}

    @staticmethod
    def policy(*entries: AllowEntry, limits: tuple[Limit, ...] = ()) -> Any:
        policy, caller = policy_of(*entries, roles={"guest": JOIN})
        default = frozenset({"default"})
        caller = replace(caller, limits=limits, verify_webhooks=default, verify_tokens=default)
        callers = {CALLER: caller, OTHER.identity.text: replace(caller, id=OTHER.identity.text)}
        return replace(policy, callers=callers, revision="r2")

    async def issue(self, request: pb.IssueTokenRequest = ASKED) -> pb.IssueTokenResponse:
        data = await self.calls.run(self.methods["IssueToken"], CONTEXT, request.SerializeToString())
        return pb.IssueTokenResponse.FromString(data)

    async def batch(self, *requests: pb.IssueTokenRequest | bytes) -> pb.BatchIssueTokensResponse:
        entries = [entry if isinstance(entry, bytes) else entry.SerializeToString() for entry in requests]
        sent = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in entries)
        data = await self.calls.run(self.methods["BatchIssueTokens"], CONTEXT, sent)
        return pb.BatchIssueTokensResponse.FromString(data)

    async def verify(self, token: str) -> pb.VerifyTokenResponse:
        data = pb.VerifyTokenRequest(token=token).SerializeToString()
        return pb.VerifyTokenResponse.FromString(await self.calls.run(self.methods["VerifyToken"], CONTEXT, data))

    async def webhook(self) -> pb.VerifyWebhookResponse:
        body = b'{"id":"EV_1"}'
        digest = b64encode(hashlib.sha256(body).digest()).decode()
        hook = sign({"iss": KEY.id, "exp": NOW + 300, "sha256": digest}, SECRET.encode())
        data = pb.VerifyWebhookRequest(body=body, authorization=hook).SerializeToString()
        return pb.VerifyWebhookResponse.FromString(await self.calls.run(self.methods["VerifyWebhook"], CONTEXT, data))

    def deny(self) -> None:
        self.in_force.replace_deny_list(DenyList({CALLER: NEVER}))

    def expire(self) -> None:
        self.clock.time += 1
        self.in_force.replace_identifier(FakeIdentifier(refusal=Refusal(Reason.CERTIFICATE_EXPIRED, "expired")))

    def unlist(self) -> None:
        self.in_force.replace_policy(replace(self.in_force.state.policy, callers={}))

    def revoke_key(self) -> None:
        self.in_force.replace_keys(keys_of(replace(KEY, state=KeyState.REVOKED), key("APInext")))

    def narrow(self) -> None:
        self.in_force.replace_policy(self.policy(replace(GUESTS, rooms=Matcher(prefixes=("consult-",)))))


REVOKED = {
    World.deny: Reason.CERTIFICATE_REVOKED,
    World.expire: Reason.CERTIFICATE_EXPIRED,
    World.unlist: Reason.CALLER_NOT_LISTED,
}


async def refusal(call: asyncio.Task[Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await asyncio.wait_for(call, 5)
    return caught.value


async def waits_for_its_record(call: Callable[[World], Any], change: Callable[[World], None]) -> tuple[World, Any]:
    """A call during whose first record something changes."""
    gate = Gate()
    world = World(gate)
    task = asyncio.create_task(call(world))
    await asyncio.wait_for(gate.reached.wait(), 5)
    change(world)
    gate.open()
    return world, task


def issuers(*responses: pb.IssueTokenResponse) -> list[str]:
    return [jwt.decode(one.token, options={"verify_signature": False})["iss"] for one in responses]


# While a record is written

CALLS = {"IssueToken": lambda world: world.issue(), "BatchIssueTokens": lambda world: world.batch(ASKED, ASKED)}


@pytest.mark.parametrize("change", REVOKED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_token_of_a_caller_that_is_revoked_while_it_is_recorded_does_not_leave(call, change):
    world, task = await waits_for_its_record(call, change)
    assert (await refusal(task)).reason is REVOKED[change]
    recorded = [record.decision_id for record in world.audit.records if record.permitted]
    assert world.audit.withheld == [(decision, REVOKED[change]) for decision in recorded]
    assert recorded


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_token_of_a_key_that_is_revoked_while_it_is_recorded_is_made_anew(call):
    world, task = await waits_for_its_record(call, World.revoke_key)
    answer = await asyncio.wait_for(task, 5)
    responses = [result.response for result in answer.results] if hasattr(answer, "results") else [answer]
    assert set(issuers(*responses)) == {"APInext"}
    withheld = [decision for decision, _ in world.audit.withheld]
    assert withheld == [record.decision_id for record in world.audit.records if record.key_id == KEY.id]
    assert [one.decision_id for one in responses] == [
        record.decision_id for record in world.audit.records if record.decision_id not in withheld
    ]


async def test_a_token_that_the_policy_permits_no_longer_when_it_is_recorded_is_denied():
    world, task = await waits_for_its_record(lambda world: world.issue(BOARD), World.narrow)
    denied = await refusal(task)
    assert (denied.reason, denied.metadata["decision_id"]) == (Reason.ROOM_NOT_PERMITTED, "d2")
    assert [(record.decision_id, record.permitted) for record in world.audit.records] == [("d1", True), ("d2", False)]
    assert [decision for decision, _ in world.audit.withheld] == ["d1"]


async def test_of_a_batch_only_what_is_permitted_no_longer_is_denied():
    world, task = await waits_for_its_record(lambda world: world.batch(ASKED, BOARD, ASKED), World.narrow)
    answer = await asyncio.wait_for(task, 5)
    assert [result.WhichOneof("outcome") for result in answer.results] == ["response", "error", "response"]
    assert [decision for decision, _ in world.audit.withheld] == ["d2"]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_new_state_that_permits_the_same_keeps_the_token(call):
    def replaced(world: World) -> None:
        world.clock.time += 2
        world.in_force.replace_policy(world.policy(GUESTS))
        world.in_force.replace_keys(keys_of(KEY))

    world, task = await waits_for_its_record(call, replaced)
    await asyncio.wait_for(task, 5)
    assert world.audit.withheld == []


async def test_a_dry_run_has_no_token_to_withhold():
    dry = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", validate_only=True)
    world, task = await waits_for_its_record(lambda world: world.issue(dry), World.deny)
    assert (await refusal(task)).reason is Reason.CERTIFICATE_REVOKED
    assert world.audit.withheld == []


async def test_a_batch_that_is_cancelled_after_its_record_withholds_its_tokens():
    first, second = Gate(), Gate()
    world = World(first, second)
    task = asyncio.create_task(world.batch(ASKED, BOARD))
    await asyncio.wait_for(first.reached.wait(), 5)
    world.revoke_key()  # so that both are decided and recorded again
    first.open()
    await asyncio.wait_for(second.reached.wait(), 5)
    assert [decision for decision, _ in world.audit.withheld] == ["d1", "d2"]
    world.deny()
    second.open()
    assert (await refusal(task)).reason is Reason.CERTIFICATE_REVOKED
    assert [decision for decision, _ in world.audit.withheld] == ["d1", "d2", "d3", "d4"]


# While the caller is charged


@pytest.mark.parametrize("change", REVOKED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nothing_is_decided_for_a_caller_that_is_revoked_while_it_is_charged(call, change):
    world = World(limits=(Limit(100, 1),))
    world.store.gate = gate = Gate()
    task = asyncio.create_task(call(world))
    await asyncio.wait_for(gate.reached.wait(), 5)
    change(world)
    gate.open()
    assert (await refusal(task)).reason is REVOKED[change]
    assert world.audit.records == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_decision_is_made_with_what_is_in_force_when_the_charge_is_done(call):
    world = World(limits=(Limit(100, 1),))
    world.store.gate = gate = Gate()
    task = asyncio.create_task(call(world))
    await asyncio.wait_for(gate.reached.wait(), 5)
    world.revoke_key()
    world.clock.time += 5
    gate.open()
    await asyncio.wait_for(task, 5)
    assert {(record.key_id, record.time) for record in world.audit.records} == {("APInext", NOW + 5)}


# While another batch of the caller has the turn


async def queued(world: World, *requests: pb.IssueTokenRequest | bytes) -> tuple[Gate, asyncio.Task[Any]]:
    """A batch that waits behind one that is being recorded until the gate opens."""
    gate = Gate()
    world.audit.gates.append(gate)
    world.first = asyncio.create_task(world.batch(ASKED))
    await asyncio.wait_for(gate.reached.wait(), 5)
    task = asyncio.create_task(world.batch(*requests))
    await asyncio.sleep(0)
    return gate, task


@pytest.mark.parametrize("change", REVOKED, ids=lambda change: change.__name__)
async def test_a_batch_of_a_caller_that_is_revoked_while_it_waits_decides_nothing(change):
    world = World(limits=(Limit(100, 1),))
    gate, task = await queued(world, ASKED, ASKED)
    change(world)
    gate.open()
    assert (await refusal(task)).reason is REVOKED[change]
    await refusal(world.first)
    assert len(world.audit.records) == 1
    assert len(world.store.charged) == 1


async def test_a_batch_is_decided_with_what_is_in_force_when_its_turn_comes():
    world = World()
    gate, task = await queued(world, ASKED, BOARD)
    world.revoke_key()
    world.narrow()
    world.clock.time += 7
    gate.open()
    answer = await asyncio.wait_for(task, 5)
    assert [result.WhichOneof("outcome") for result in answer.results] == ["response", "error"]
    response = answer.results[0].response
    assert issuers(response) == ["APInext"]
    assert response.issue_time.seconds == NOW + 7


async def test_a_batch_that_waits_is_not_decoded(monkeypatch):
    kinds: list[object] = []

    def counted(kind: type[Any], *given: Any) -> Any:
        kinds.append(kind)
        return decoded(kind, *given)

    monkeypatch.setattr(batches_module, "decoded", counted)
    world = World()
    gate, task = await queued(world, ASKED)
    before = len(kinds)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(kinds) == before == 3, "the first batch's list, and its entry for the charge and for the decision"
    gate.open()
    await asyncio.wait_for(task, 5)
    assert len(kinds) == 6


async def test_another_callers_batch_does_not_wait_for_it():
    world = World()
    gate, task = await queued(world, ASKED)
    world.in_force.replace_identifier(FakeIdentifier(OTHER))
    answer = await asyncio.wait_for(world.batch(ASKED), 5)
    assert answer.results[0].response.token
    world.in_force.replace_identifier(FakeIdentifier())
    assert not task.done()
    gate.open()
    await asyncio.wait_for(task, 5)


async def test_a_batch_without_a_place_in_its_callers_queue_is_refused():
    world = World()
    gate, task = await queued(world, ASKED)
    more = [asyncio.create_task(world.batch(ASKED)) for _ in range(PLACES - 2)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as caught:
        await world.batch(ASKED)
    assert caught.value.reason is Reason.OVERLOADED
    gate.open()
    await asyncio.wait_for(asyncio.gather(task, *more), 5)


# Between the entries of a batch


@pytest.mark.parametrize("change", REVOKED, ids=lambda change: change.__name__)
async def test_a_batch_of_a_caller_that_is_revoked_between_its_entries_ends(change, monkeypatch):
    world = World()

    async def changes() -> None:
        await world.audit.denied.wait()
        change(world)

    denied = pb.IssueTokenRequest(role="gone", room="r", identity="i")  # denials are recorded at once
    changing = asyncio.create_task(changes())
    assert (await refusal(asyncio.create_task(world.batch(*[denied] * 400)))).reason is REVOKED[change]
    await changing
    assert 1 <= len(world.audit.records) < 10
    assert world.audit.withheld == []


async def test_a_key_that_is_revoked_between_the_entries_signs_none_that_leaves():
    world = World()

    async def changes() -> None:
        await world.audit.denied.wait()
        world.revoke_key()

    denied = pb.IssueTokenRequest(role="gone", room="r", identity="i")
    changing = asyncio.create_task(changes())
    answer = await asyncio.wait_for(world.batch(ASKED, denied, *[ASKED] * 300), 5)
    await changing
    assert set(issuers(*(result.response for result in answer.results if result.response.token))) == {"APInext"}


# Verifications


REVOKED_TOO = {**REVOKED, World.revoke_key: Reason.KEY_UNKNOWN}


@pytest.mark.parametrize("change", REVOKED_TOO, ids=lambda change: change.__name__)
async def test_a_webhook_is_not_verified_for_what_is_revoked_while_the_store_is_asked(change):
    world = World()
    world.acknowledged.gate = gate = Gate()
    task = asyncio.create_task(world.webhook())
    await asyncio.wait_for(gate.reached.wait(), 5)
    change(world)
    gate.open()
    assert (await refusal(task)).reason is REVOKED_TOO[change]


async def test_a_webhook_is_verified_when_nothing_changes_or_the_new_state_permits_it():
    world = World()
    assert (await world.webhook()).key_id == KEY.id
    world.acknowledged.gate = gate = Gate()
    task = asyncio.create_task(world.webhook())
    await asyncio.wait_for(gate.reached.wait(), 5)
    world.in_force.replace_keys(keys_of(KEY, key("APInext")))
    world.clock.time = NOW + 2
    gate.open()
    assert (await task).key_id == KEY.id


def token_of(size: int) -> str:
    """A token of so many characters or a few more."""
    claims = {"sub": "user-1", "iss": KEY.id, "exp": NOW + 300}
    return sign({"metadata": "x" * (size * 3 // 4), **claims}, SECRET.encode())


@pytest.mark.parametrize("change", REVOKED_TOO, ids=lambda change: change.__name__)
async def test_a_large_token_is_verified_in_turns_with_the_state_of_its_own(change):
    world = World()
    async with world.turns.of(CALLER):
        task = asyncio.create_task(world.verify(token_of(MAX_UNSIGNED)))
        assert (await asyncio.wait_for(world.verify(token_of(100)), 5)).identity == "user-1"
        assert not task.done()
        change(world)
    assert (await refusal(task)).reason is REVOKED_TOO[change]


async def test_a_large_token_is_verified_as_a_small_one():
    answers = [await World().verify(token_of(size)) for size in (100, MAX_UNSIGNED)]
    assert [len(answer.metadata) for answer in answers] == [75, MAX_UNSIGNED * 3 // 4]
    for answer in answers:
        answer.metadata = ""
    assert answers[0] == answers[1]


# Reading


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff", Reason.REQUEST_MALFORMED),
        (b"\x0a\x02\x0a\xff", Reason.REQUEST_MALFORMED),
        (b"\x0a\x00\x0a\x03\xba\x3e\x01", Reason.REQUEST_MALFORMED),
        (b"\x0a\x00\x0a\x04\xba\x3e\x01x", Reason.FIELD_UNKNOWN),
        (b"\x0a\x00\xba\x3e\x01x", Reason.FIELD_UNKNOWN),
        (b"\x0a\x00" * 524_289, Reason.REQUEST_INVALID),
        (b"\x0a\x00" * 501, Reason.REQUEST_INVALID),
        (b"", Reason.REQUEST_INVALID),
    ],
)
async def test_a_batch_that_can_not_be_read_is_refused_whole_and_charged_once(sent, reason):
    world = World(limits=(Limit(1000, 1),))
    with pytest.raises(Refusal) as caught:
        await world.calls.run(world.methods["BatchIssueTokens"], CONTEXT, sent)
    assert caught.value.reason is reason
    if reason is Reason.REQUEST_MALFORMED and len(sent) == 1:
        assert "livekit_auth.v1.BatchIssueTokensRequest" in caught.value.message
    assert [[cost for _, cost in charges] for charges in world.store.charged] == [[1]]
    told = [Reason.REQUEST_INVALID] if reason is Reason.REQUEST_INVALID and len(sent) < 1024 * 1024 else []
    assert [record.reason for record in world.audit.records] == told


def test_a_batch_is_its_entries_and_nothing_else():
    """What reads a batch without decoding it knows this one field."""
    assert list(pb.BatchIssueTokensRequest.DESCRIPTOR.fields_by_name) == ["requests"]


async def test_what_is_read_is_the_entries_as_they_came():
    entries = [ASKED, BOARD, pb.IssueTokenRequest(project="alpha")]
    data = pb.BatchIssueTokensRequest(requests=entries).SerializeToString()
    batch = await batches_module.read(data, Turns(FakeClock()))
    assert batch.entries == tuple(entry.SerializeToString() for entry in entries)
    assert (batch.count, batch.projects) == (3, ("", "", "alpha"))


async def test_a_request_that_breaks_a_rule_leaves_the_same_line_alone_and_in_a_batch() -> None:
    """Without what it asks for. The answer names the line's decision, as every denial does."""
    world, broken = World(), pb.IssueTokenRequest(role="guest", room="a\nb", identity="user-1")
    with pytest.raises(Refusal) as caught:
        await world.issue(broken)
    response = await world.batch(broken)
    assert (caught.value.reason, caught.value.metadata) == (Reason.REQUEST_INVALID, {"decision_id": "d1"})
    assert response.results[0].error == to_status(replace(caught.value, metadata={"decision_id": "d2"}))
    for number, record in enumerate(world.audit.records, 1):
        said = {name: value for name, value in asdict(record).items() if value not in ("", None, False)}
        assert said == {
            "decision_id": f"d{number}",
            "time": NOW,
            "caller": CALLER,
            "certificate_serial": "2a",
            "method": ("IssueToken", "BatchIssueTokens")[number - 1],
            "reason": Reason.REQUEST_INVALID,
            "policy_revision": "r2",
        }
    assert len(world.audit.records) == 2
