"""GetDecision against real servers: from the error to its reasons, and for nobody else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from google.rpc import error_details_pb2

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import decision_pb2
from support.deployment import POLICY, Deployment
from support.fleet import WEB, Fleet
from support.redis_server import RedisServer
from support.refusals import Refused, refusal
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

DESK, OTHER_DESK = "spiffe://example.org/desk", "spiffe://example.org/other-desk"
READERS = f"""\
  - {{id: {DESK}, read_decisions: [alpha]}}
  - {{id: {OTHER_DESK}, read_decisions: [beta]}}
"""
BOARD = pb.IssueTokenRequest(
    role="guest", room="board", identity="admin", metadata="MARKER", request_reason="TICKET-1 \u202e"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server whose policy has callers that read decisions."""
    deployment = Deployment(tmp_path_factory.mktemp("decisions"))
    deployment.write()
    policy = deployment.directory / "policy.yaml"
    policy.write_text(POLICY + READERS)
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


@pytest.fixture(scope="module")
def web(server: Deployment) -> AuthServiceStub:
    return server.caller(WEB)


def denied(stub: AuthServiceStub, request: pb.IssueTokenRequest = BOARD) -> str:
    """The id of a denial."""
    return refusal(lambda: stub.IssueToken(request)).metadata["decision_id"]


def asked(decision_id: str) -> pb.GetDecisionRequest:
    return pb.GetDecisionRequest(decision_id=decision_id)


def explained(stub: AuthServiceStub, decision_id: str) -> decision_pb2.Decision:
    return stub.GetDecision(asked(decision_id)).decision


def not_found(stub: AuthServiceStub, decision_id: str) -> Refused:
    got = refusal(partial(stub.GetDecision, asked(decision_id)))
    assert (got.code, got.reason) == ("NOT_FOUND", "DECISION_NOT_FOUND")
    return got


def test_a_denial_is_explained_to_the_caller_that_got_it(server: Deployment, web: AuthServiceStub) -> None:
    decision = explained(web, denied(web))
    record = server.audit(decision.decision_id)
    for name in ("decision_id", "method", "reason", "policy_revision", "project", "room", "identity", "request_reason"):
        assert getattr(decision, name) == record[name]
    assert (decision.workload_id, decision.decide_time.seconds, decision.role) == (WEB, record["time"], "guest")
    assert decision.request_reason == "TICKET-1 \u202e"
    [shortfall] = decision.shortfalls
    assert (shortfall.entry, decision.shortfall_count) == ("consult", 1)
    assert [lack.reason for lack in shortfall.lacks] == ["ROOM_NOT_PERMITTED", "IDENTITY_NOT_PERMITTED"]
    assert decision.message == shortfall.lacks[0].message
    assert b"MARKER" not in decision.SerializeToString()


def test_every_refusal_that_is_in_the_trail_can_be_explained(web: AuthServiceStub) -> None:
    broken = pb.IssueTokenRequest(role="guest", room="a\nb")
    assert explained(web, denied(web, broken)).reason == "REQUEST_INVALID"
    answer = web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[BOARD, broken]))
    reasons = []
    for result in answer.results:
        decision = explained(web, decision_id_of(result))
        assert decision.method == "BatchIssueTokens"
        reasons.append(decision.reason)
    assert reasons == ["ROOM_NOT_PERMITTED", "REQUEST_INVALID"]
    empty = refusal(lambda: web.BatchIssueTokens(pb.BatchIssueTokensRequest()))
    assert explained(web, empty.metadata["decision_id"]).message == empty.message


def decision_id_of(result: pb.IssueTokenResult) -> str:
    info = error_details_pb2.ErrorInfo()
    assert result.error.details[0].Unpack(info)
    return info.metadata["decision_id"]


def test_a_denial_that_shares_its_line_is_explained_too(web: AuthServiceStub) -> None:
    for decision_id in [denied(web) for _ in range(30)]:
        assert explained(web, decision_id).decision_id == decision_id


def test_for_every_other_caller_it_does_not_exist(server: Deployment, web: AuthServiceStub) -> None:
    decision_id = denied(web)
    for uri in ("admin", "hooks", OTHER_DESK.rpartition("/")[2]):
        other = server.caller(f"spiffe://example.org/{uri}")
        assert not_found(other, decision_id) == not_found(other, "0" * 24)
    stranger = server.caller("spiffe://example.org/stranger")
    assert refusal(lambda: stranger.GetDecision(asked(decision_id))).reason == "CALLER_NOT_LISTED"


def test_a_caller_with_read_decisions_reads_those_of_its_projects(server: Deployment, web: AuthServiceStub) -> None:
    desk = server.caller(DESK)
    assert explained(desk, denied(web)).workload_id == WEB
    not_found(desk, denied(web, pb.IssueTokenRequest(role="guest", project="beta", room="consult-1")))
    not_found(desk, denied(web, pb.IssueTokenRequest(role="guest", room="a\nb")))


def test_a_permission_that_is_withdrawn_ends_at_once(deployment: Deployment) -> None:
    policy = deployment.directory / "policy.yaml"
    policy.write_text(POLICY + READERS)
    deployment.start()
    decision_id, desk = denied(deployment.caller(WEB)), deployment.caller(DESK)
    assert explained(desk, decision_id)
    policy.write_text(POLICY + READERS.replace("read_decisions: [alpha]", "read_decisions: []"))
    eventually(lambda: deployment.log.count('"kind":"policy"') > 0)
    not_found(desk, decision_id)
    assert explained(deployment.caller(WEB), decision_id)


@pytest.mark.parametrize("decision_id", ["", "A" * 24, "a" * 65, "a\nb", "a b", "../x", "*"])
def test_what_is_no_id_of_a_decision_is_refused(web: AuthServiceStub, decision_id: str) -> None:
    got = refusal(lambda: web.GetDecision(asked(decision_id)))
    assert (got.code, got.reason, got.fields) == ("INVALID_ARGUMENT", "REQUEST_INVALID", ("decision_id",))


def test_a_request_reason_is_in_the_trail_and_in_no_other_line(server: Deployment, web: AuthServiceStub) -> None:
    answer = web.IssueToken(
        pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", request_reason="REASON-7")
    )
    assert server.audit(answer.decision_id)["request_reason"] == "REASON-7"
    lines = [line for line in server.log.splitlines() if "REASON-7" in line]
    assert len(lines) == 1


@pytest.mark.slow
def test_with_redis_every_worker_and_server_explains_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        extra = f"redis: {{url: 'redis://127.0.0.1:{redis.port}'}}\n"
        fleet = Fleet.create(tmp_path_factory.mktemp("fleet"), extra).start()
        servers = [fleet.deployment, second_server(tmp_path_factory.mktemp("second"), fleet.deployment, extra)]
        try:
            decision_id = denied(servers[0].caller(WEB))
            eventually(lambda: redis_has(redis, decision_id))
            for server in servers:
                for _ in range(10):  # connections are spread over the workers
                    assert explained(server.caller(WEB), decision_id).reason == "ROOM_NOT_PERMITTED"
            assert len(fleet.counted()) == 2
            redis.kill()
            stub = servers[1].caller(WEB)
            assert explained(stub, denied(stub)).reason == "ROOM_NOT_PERMITTED"
            not_found(stub, decision_id)
        finally:
            assert [server.stop() for server in servers] == [0, 0]


def second_server(directory: Path, like: Deployment, extra: str) -> Deployment:
    """Another server with the same CAs."""
    authorities = {name: getattr(like, name) for name in ("example_ca", "other_ca", "dns_ca", "server_ca")}
    server = Deployment(directory, **authorities)
    server.write(extra)
    server.start()
    return server


def redis_has(redis: RedisServer, decision_id: str) -> bool:
    with redis.client() as database:
        return bool(database.exists(f"livekit-auth:decision:{decision_id}"))


@pytest.mark.slow
def test_without_redis_the_connection_of_a_denial_explains_it(tmp_path: Path) -> None:
    fleet = Fleet.create(tmp_path).start()
    try:
        for _ in range(10):
            stub = fleet.deployment.caller(WEB)
            assert explained(stub, denied(stub)).reason == "ROOM_NOT_PERMITTED"
        assert len(fleet.counted()) == 2
    finally:
        assert fleet.deployment.stop() == 0
