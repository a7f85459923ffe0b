"""Where in a call its caller is charged: once it is known, and before anything else is done for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.identity import Identified
from livekit_auth_server.core.limits import Limit
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service.admission import CallContext
from livekit_auth_server.service.caller import get_caller
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.limits import RateLimits
from livekit_auth_server.service.methods import GET_CALLER, VERIFY_TOKEN
from livekit_auth_server.service.state import InForce, State
from livekit_auth_server.stores.limits_in_memory import MemoryLimits
from support.fakes import NOW, CallLog, FakeClock, FakeIdentifier, LimitLog
from support.handlers import KEY, keys_of
from support.policies import CALLER, EVERYTHING, policy_of

if TYPE_CHECKING:
    from livekit_auth_server.service.method import Served

CONTEXT = CallContext(b"leaf", b"chain")
STRANGER = Identified(WorkloadId.parse("spiffe://example.org/stranger"), "2b", NOW - 60, NOW + 3600)
GOOD = pb.VerifyTokenRequest(token="a.b.c").SerializeToString()
UNREADABLE = b"\xff"
OPEN = GET_CALLER.served_by(get_caller)
ONCE = Limit(1, 3600)


class Counting:
    """A handler that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _caller: object, _request: object) -> pb.VerifyTokenResponse:
        self.count += 1
        return pb.VerifyTokenResponse()


class Unread:
    """A request type whose message must not be read."""

    DESCRIPTOR = pb.GetCallerRequest.DESCRIPTOR

    def __init__(self) -> None:
        raise AssertionError("the request was read")


def calls(*, identified: Identified | None = None, log: CallLog | None = None) -> Calls:
    """Calls of which the listed caller has one an hour, and all unlisted ones together one an hour as well."""
    policy, caller = policy_of(EVERYTHING)
    policy = replace(policy, callers={CALLER: replace(caller, limits=(ONCE,))})
    state = State(policy, keys_of(KEY), FakeIdentifier(identified) if identified else FakeIdentifier())
    clock = FakeClock()
    store = MemoryLimits(clock)
    return Calls(
        InForce(state), clock, log or CallLog(), RateLimits(store, MemoryLimits(clock), LimitLog(), (), (ONCE,))
    )


async def reason(calls: Calls, method: Served, data: bytes) -> str:
    try:
        await calls.run(method, CONTEXT, data)
    except Refusal as refusal:
        return refusal.reason
    return "OK"


async def test_a_call_over_the_limit_does_not_reach_its_handler():
    handler, log = Counting(), CallLog()
    served = calls(log=log)
    method = VERIFY_TOKEN.served_by(handler)
    assert [await reason(served, method, GOOD) for _ in range(3)] == ["OK", "RATE_LIMITED", "RATE_LIMITED"]
    assert handler.count == 1
    assert [(call.code, call.reason, call.caller) for call in log.calls[1:]] == [
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED", CALLER)
    ] * 2


async def test_a_request_that_can_not_be_read_counts_as_well():
    served = calls()
    method = VERIFY_TOKEN.served_by(Counting())
    assert [await reason(served, method, UNREADABLE) for _ in range(2)] == ["REQUEST_MALFORMED", "RATE_LIMITED"]
    assert await reason(served, method, GOOD) == "RATE_LIMITED"


async def test_a_listed_callers_open_calls_count():
    served = calls()
    assert [await reason(served, OPEN, b"") for _ in range(2)] == ["OK", "RATE_LIMITED"]


async def test_unlisted_callers_share_a_budget_over_all_methods():
    served = calls(identified=STRANGER)
    method = VERIFY_TOKEN.served_by(Counting())
    assert await reason(served, method, GOOD) == "CALLER_NOT_LISTED"
    assert await reason(served, OPEN, b"") == "RATE_LIMITED"


async def test_the_request_of_an_unlisted_caller_over_the_limit_is_not_read():
    served = calls(identified=STRANGER)
    assert await reason(served, OPEN, b"") == "OK"
    assert (
        await reason(served, replace(GET_CALLER, request=cast("Any", Unread)).served_by(get_caller), b"")
        == "RATE_LIMITED"
    )


async def test_who_can_not_be_identified_costs_nobody_anything():
    served = calls()
    refusal = Refusal(Reason.CERTIFICATE_INVALID, "no identity")
    served.in_force.replace_identifier(FakeIdentifier(refusal=refusal))
    for _ in range(3):
        assert await reason(served, OPEN, b"") == "CERTIFICATE_INVALID"
    served.in_force.replace_identifier(FakeIdentifier())
    assert await reason(served, OPEN, b"") == "OK"


async def test_without_limits_nothing_is_charged():
    policy, _ = policy_of(EVERYTHING)
    served = Calls(InForce(State(policy, keys_of(KEY), FakeIdentifier())), FakeClock(), CallLog())
    assert [await reason(served, OPEN, b"") for _ in range(50)] == ["OK"] * 50


@pytest.mark.parametrize("identified", [None, STRANGER])
async def test_a_new_policy_is_charged_by_as_soon_as_it_is_in_force(identified):
    served = calls(identified=identified)
    assert await reason(served, OPEN, b"") == "OK"
    policy, caller = policy_of(EVERYTHING)
    listed = {CALLER: caller, str(STRANGER.identity.text): caller}
    served.in_force.replace_policy(replace(policy, callers=listed))
    assert [await reason(served, OPEN, b"") for _ in range(3)] == ["OK"] * 3
