"""The service config of the contract in a real gRPC channel: its timeout and retries, and the server's pushback."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
from support.probes import within
from support.refusals import code_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.deployment import Deployment

CONFIG = (Path(__file__).parents[2] / "protos/livekit_auth/v1/auth_service_grpc_service_config.json").read_text()
SERVICE = pb.DESCRIPTOR.services_by_name["AuthService"]
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
WEB = "spiffe://example.org/web"


@dataclass
class Scripted(grpc.GenericRpcHandler):
    """Answers calls of any method with the next code and pushback of the script, then well, once `wait` is set."""

    script: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    calls: list[tuple[str, float]] = field(default_factory=list)  # method and time
    wait: threading.Event | None = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = details.method

        def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((method, time.monotonic()))
            if self.script:
                code, pushback = self.script.pop(0)
                if pushback:
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
                context.abort(code, "as the script says")
            if self.wait is not None:
                self.wait.wait(10)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def attempt(self, channel: grpc.Channel, method: str = "IssueToken") -> grpc.StatusCode:
        """Makes a call without a deadline of its own; returns its code."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
        try:
            call(b"")
        except grpc.RpcError as error:
            return code_of(error)
        return grpc.StatusCode.OK


@contextmanager
def serving(config: str) -> Iterator[tuple[Scripted, grpc.Channel]]:
    handler = Scripted()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.service_config", config)]) as channel:
        yield handler, channel
    server.stop(None)


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, grpc.Channel]]:
    with serving(CONFIG) as both:
        yield both


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
def test_every_method_is_retried(scripted: tuple[Scripted, grpc.Channel], method: str) -> None:
    handler, channel = scripted
    handler.script = [(grpc.StatusCode.UNAVAILABLE, "")]
    assert handler.attempt(channel, method) is grpc.StatusCode.OK
    assert [name for name, _ in handler.calls] == [f"/{SERVICE.full_name}/{method}"] * 2


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
def test_every_method_has_the_timeout(method: str) -> None:
    shorter = CONFIG.replace('"timeout": "5s"', '"timeout": "0.2s"')
    assert shorter != CONFIG
    with serving(shorter) as (handler, channel):
        handler.wait = threading.Event()
        assert handler.attempt(channel, method) is grpc.StatusCode.DEADLINE_EXCEEDED
        handler.wait.set()


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name not in {"OK", "UNAVAILABLE"}])
def test_no_other_code_is_retried(scripted: tuple[Scripted, grpc.Channel], code: grpc.StatusCode) -> None:
    """RESOURCE_EXHAUSTED least of all: C-core says it of messages that never fit, without a pushback."""
    handler, channel = scripted
    handler.script = [(code, "10")]
    assert handler.attempt(channel) is code
    assert len(handler.calls) == 1


def test_a_call_is_tried_five_times(scripted: tuple[Scripted, grpc.Channel]) -> None:
    handler, channel = scripted
    handler.script = [(grpc.StatusCode.UNAVAILABLE, "10")] * 9
    assert handler.attempt(channel) is grpc.StatusCode.UNAVAILABLE
    assert len(handler.calls) == json.loads(CONFIG)["methodConfig"][0]["retryPolicy"]["maxAttempts"] == 5


def test_the_pushback_is_waited_for(scripted: tuple[Scripted, grpc.Channel]) -> None:
    handler, channel = scripted
    handler.script = [(grpc.StatusCode.UNAVAILABLE, "1000")]  # longer than the config's own backoff of 0.1 s
    assert handler.attempt(channel) is grpc.StatusCode.OK
    (_, first), (_, second) = handler.calls
    assert 0.95 < second - first < 4


def test_a_negative_pushback_ends_the_retries(scripted: tuple[Scripted, grpc.Channel]) -> None:
    handler, channel = scripted
    handler.script = [(grpc.StatusCode.UNAVAILABLE, "-1")]
    assert handler.attempt(channel) is grpc.StatusCode.UNAVAILABLE
    assert len(handler.calls) == 1


# The server's own pushback


@contextmanager
def busy(server: Deployment) -> Iterator[threading.Event]:
    """Holds the only place that one caller may have, until the event is set."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(30)
        yield ASK.SerializeToString()

    hold = server.raw_stream(server.example_ca.issue(uris=[WEB]), "IssueToken")
    stub = server.caller(WEB)
    stub.IssueToken(ASK)  # connects
    call = hold.future(nothing())

    def held() -> bool:
        return stub.IssueToken.future(ASK, timeout=5).exception() is not None and not call.done()

    within(10, held, "the first call's place to be taken")
    try:
        yield over
    finally:
        over.set()
        call.cancel()


def retrying(server: Deployment) -> AuthServiceStub:
    """The caller with the service config."""
    return AuthServiceStub(server.channel(server.example_ca.issue(uris=[WEB]), CONFIG))


@pytest.fixture
def one_place(deployment: Deployment) -> Deployment:
    """A server that takes one call of a caller at a time."""
    deployment.write("limits: {concurrent_calls: 4}")
    deployment.start()
    return deployment


def test_a_call_without_room_is_answered_after_the_wait(one_place: Deployment) -> None:
    stub = retrying(one_place)
    with busy(one_place) as over:
        started = time.monotonic()
        call = stub.IssueToken.future(ASK)
        threading.Timer(0.3, over.set).start()
        assert call.result().token
        assert time.monotonic() - started > 0.95, "after the wait that the server asked for"


def test_a_call_whose_deadline_comes_before_the_wait_is_told_why(one_place: Deployment) -> None:
    stub = retrying(one_place)
    with busy(one_place):
        started = time.monotonic()
        got = refusal(lambda: stub.IssueToken(ASK, timeout=0.9))
        assert (got.code, got.reason, got.retry_after) == ("UNAVAILABLE", "OVERLOADED", 1.0)
        assert got.metadata == {"cause": "caller_calls"}
        assert time.monotonic() - started < 0.8
