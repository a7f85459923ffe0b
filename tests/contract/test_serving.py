"""The server around the methods: health, reflection, bounds, draining."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import Deployment
from support.refusals import code_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")


def credential(server: Deployment):
    return server.example_ca.issue(uris=["spiffe://example.org/web"])


def test_health_says_serving(server: Deployment) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel(credential(server)))
    for service in ("", "livekit_auth.v1.AuthService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service_where_it_is_switched_on(server: Deployment) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel(credential(server)))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    assert "livekit_auth.v1.AuthService" in {service.name for service in answer.list_services_response.service}


def test_reflection_is_off_by_default(tmp_path: Path) -> None:
    server = Deployment(tmp_path)
    server.write()
    path = tmp_path / "server.yaml"
    path.write_text(path.read_text().replace("reflection: true\n", ""))
    server.start()
    try:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel(credential(server)))
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request])))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        assert server.stop() == 0


def test_a_message_over_the_bound_is_refused_and_the_next_one_served(server: Deployment) -> None:
    call = server.raw(credential(server), "IssueToken")
    assert refusal(lambda: call(b"x" * (4 * 1024 * 1024 + 1))).code == "RESOURCE_EXHAUSTED"
    assert call(ASK.SerializeToString())


def test_metadata_over_the_bound_is_refused_and_the_next_call_served(server: Deployment) -> None:
    stub = server.stub(credential(server))
    got = refusal(lambda: stub.IssueToken(ASK, metadata=(("x-filler", "x" * 40_000),)))
    assert got.code == "RESOURCE_EXHAUSTED"
    assert stub.IssueToken(ASK).token


def test_an_unknown_method_is_unimplemented(server: Deployment) -> None:
    unknown = server.raw(credential(server), "GiveMeTheSecret")
    got = refusal(lambda: unknown(b""))
    assert got.code == "UNIMPLEMENTED"


def test_a_stream_that_sends_no_message_keeps_nobody_waiting(server: Deployment) -> None:
    hung = threading.Event()

    def nothing() -> Iterator[bytes]:
        hung.wait(10)
        yield from ()

    issue = server.raw_stream(credential(server), "IssueToken")
    silent = [issue.future(nothing()) for _ in range(50)]
    try:
        started = time.monotonic()
        assert server.stub(credential(server)).IssueToken(ASK, timeout=5).token
        assert time.monotonic() - started < 5
    finally:
        for call in silent:
            call.cancel()
        hung.set()


def test_sigterm_drains_calls_in_flight(tmp_path: Path) -> None:
    """A call is answered whole or fails in a way that clients retry; none hangs, and the process ends with 0."""
    server = Deployment(tmp_path)
    server.write()
    server.start()
    stub = server.stub(credential(server))
    stub.IssueToken(ASK)
    batch = pb.BatchIssueTokensRequest(requests=[ASK] * 500)
    calls = [stub.BatchIssueTokens.future(batch) for _ in range(10)]
    assert calls[0].result(timeout=20)
    stopper = threading.Thread(target=server.started.terminate)
    stopper.start()
    outcomes = [call.exception(timeout=20) for call in calls]
    stopper.join()
    assert server.started.wait(20) == 0
    server.stop()
    failed = [code_of(error) for error in outcomes if error is not None]
    assert set(failed) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert '"event":"stopped"' in server.log
