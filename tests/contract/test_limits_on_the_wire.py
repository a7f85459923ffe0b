"""Rate limits against the real server: who is refused, and whether the wait that it is told is the right one."""

from __future__ import annotations

import time
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

import livekit_auth
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import Deployment
from support.redis_server import free_port
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITED = """\
version: 1
roles: {guest: {video: {room_join: true}}}
callers:
"""
ALLOW = "{projects: [alpha], roles: [guest], rooms: any, identities: any}"
LIMITS = {
    "five": "[{rate: 5/s}, {rate: 10000/h}]",
    "batch": "[{rate: 8/s, methods: [IssueToken]}, {rate: 100/h, methods: [VerifyToken]}]",
    "client": "[{rate: 2/m}]",
    "unread": "[{rate: 2/m}]",
}
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, metrics: int) -> Iterator[Deployment]:
    """A server whose callers have limits; those without have two calls a minute, unlisted ones three together."""
    deployment = Deployment(tmp_path_factory.mktemp("limited"))
    deployment.write(f"default_limits: [{{rate: 2/m}}]\nunlisted_limits: [{{rate: 3/m}}]\nmetrics: 127.0.0.1:{metrics}")
    callers = [f"  - {{id: {uri(name)}, allow: [{ALLOW}], limits: {limits}}}\n" for name, limits in LIMITS.items()]
    callers.append(f"  - {{id: {uri('default')}, allow: [{ALLOW}]}}\n")
    (deployment.directory / "policy.yaml").write_text(LIMITED + "".join(callers))
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


def uri(name: str) -> str:
    return f"spiffe://example.org/{name}"


def test_a_call_just_after_the_wait_passes_and_one_150_ms_before_does_not(limited: Deployment) -> None:
    stub = limited.caller(uri("five"))
    stub.GetCaller(pb.GetCallerRequest())  # connects
    time.sleep(1.1)
    for pause in (0.0, 0.05, 0.11):  # so that the calls that leave the window first are spread
        for _ in range(5):
            stub.IssueToken(ASK)
            time.sleep(pause)
        told = refusal(lambda: stub.IssueToken(ASK))
        at = time.monotonic()
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert told.metadata == {"limit": "5/s", "limit_methods": "any"}
        assert told.retry_after is not None
        assert told.retry_after <= 1.0
        if told.retry_after > 0.2:
            time.sleep(at + told.retry_after - 0.15 - time.monotonic())
            early = refusal(lambda: stub.IssueToken(ASK))
            assert early.retry_after == pytest.approx(0.15, abs=0.1)
        time.sleep(max(0.0, at + told.retry_after + 0.01 - time.monotonic()))
        stub.IssueToken(ASK)
        time.sleep(1.1)


def test_a_batch_costs_as_much_as_its_entries(limited: Deployment) -> None:
    stub = limited.caller(uri("batch"))
    dry = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", validate_only=True)
    answer = stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ASK] * 4 + [dry] * 2))
    assert [bool(result.response.token) for result in answer.results] == [True] * 4 + [False] * 2
    told = refusal(lambda: stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ASK] * 3)))
    assert (told.reason, told.metadata["limit_methods"]) == ("RATE_LIMITED", "IssueToken")
    stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ASK] * 2))
    never = refusal(lambda: stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ASK] * 9)))
    assert (never.code, never.reason, never.retry_after) == ("INVALID_ARGUMENT", "BATCH_EXCEEDS_LIMIT", None)
    assert never.metadata == {"limit": "8/s", "limit_methods": "IssueToken"}
    assert "9 calls" in never.message
    assert refusal(lambda: stub.VerifyToken(pb.VerifyTokenRequest(token="a.b.c"))).reason != "RATE_LIMITED"


async def test_the_client_knows_how_long_to_wait(limited: Deployment, tmp_path) -> None:
    cert, key = limited.example_ca.issue(uris=[uri("client")]).write(tmp_path, "client")
    address = f"localhost:{limited.port}"
    async with livekit_auth.AuthClient(address, ca=limited.directory / "server-ca.pem", cert=cert, key=key) as client:
        for _ in range(2):
            await client.issue_token(role="guest", room="consult-1", identity="user-1")
        with pytest.raises(livekit_auth.RateLimited) as caught:
            await client.issue_token(role="guest", room="consult-1", identity="user-1")
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.metadata["limit"] == "2/m"
    assert caught.value.retry_after is not None
    assert 55 < caught.value.retry_after.total_seconds() <= 60


def test_a_caller_without_limits_has_the_default_ones(limited: Deployment) -> None:
    stub = limited.caller(uri("default"))
    stub.IssueToken(ASK)
    stub.GetCaller(pb.GetCallerRequest())
    told = refusal(lambda: stub.IssueToken(ASK))
    assert (told.reason, told.metadata["limit"]) == ("RATE_LIMITED", "2/m")


def test_requests_that_can_not_be_read_count(limited: Deployment) -> None:
    call = limited.raw(limited.example_ca.issue(uris=[uri("unread")]), "IssueToken")
    assert [refusal(lambda: call(b"\xff")).reason for _ in range(3)] == ["REQUEST_MALFORMED"] * 2 + ["RATE_LIMITED"]


def test_unlisted_callers_share_one_budget_and_listed_ones_do_not_feel_it(limited: Deployment) -> None:
    one, other = limited.caller(uri("stranger")), limited.caller(uri("another"))
    assert not one.GetCaller(pb.GetCallerRequest()).listed
    assert refusal(lambda: other.IssueToken(ASK)).reason == "CALLER_NOT_LISTED"
    assert not other.GetCaller(pb.GetCallerRequest()).listed
    for stub in (one, other):
        told = refusal(partial(stub.GetCaller, pb.GetCallerRequest()))
        assert (told.code, told.reason, told.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "3/m")
    assert limited.caller(uri("five")).GetCaller(pb.GetCallerRequest()).listed


def test_refused_calls_are_counted(limited: Deployment, metrics: int) -> None:
    stub = limited.caller(uri("never-listed"))
    for _ in range(4):
        with pytest.raises(grpc.RpcError):
            stub.VerifyToken(pb.VerifyTokenRequest(token="a.b.c"))
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as response:
        shown = response.read().decode()
    assert 'livekit_auth_limited_total{method="VerifyToken"}' in shown
    assert "livekit_auth_redis_up" not in shown
