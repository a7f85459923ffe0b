"""What the edge does with a call before and after the service: TLS, places, bytes, messages, refusals."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from structlog.testing import capture_logs

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.identity import Identified
from livekit_auth_server.core.refusal import Reason, Refusal, rate_limited
from livekit_auth_server.core.revocation import NEVER, DenyList
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.methods import VERIFY_TOKEN
from livekit_auth_server.service.state import InForce, State
from livekit_auth_server.transport.grpc_aio import handlers as module
from livekit_auth_server.transport.grpc_aio.connections import Connections
from livekit_auth_server.transport.grpc_aio.gate import Gate
from livekit_auth_server.transport.grpc_aio.handlers import Edge
from livekit_auth_server.transport.grpc_aio.health_and_reflection import HEALTH, REFLECTION, Health, Reflection
from support.fakes import NOW, CallLog, FakeClock, FakeIdentifier
from support.handlers import state_of
from support.policies import CALLER, EVERYTHING

GOOD = pb.VerifyTokenRequest(token="a.b.c").SerializeToString()
STRANGER = Identified(WorkloadId.parse("spiffe://example.org/stranger"), "2b", NOW - 60, NOW + 3600)
SILENCE = object()


class Aborted(Exception):  # noqa: N818 - as grpc's
    """What abort raises."""


@dataclass
class FakeContext:
    """A call whose messages are these, then the end of the stream; SILENCE is a message that never comes."""

    messages: list[Any] = field(default_factory=lambda: [GOOD])
    tls: bytes = b"TLSv1.3"
    address: str = "ipv4:192.0.2.1:4711"
    reads: int = 0
    left: float | None = None
    code: str = "OK"
    reason: str = ""
    pushback: str = ""
    message: str = ""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"ssl_tls_version": [self.tls], "x509_pem_cert": [b"leaf"]}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return self.address

    async def read(self) -> object:
        self.reads += 1
        message = self.messages.pop(0) if self.messages else grpc.aio.EOF
        if message is SILENCE:
            await asyncio.Event().wait()
        return message

    def time_remaining(self) -> float | None:
        return self.left

    async def abort(self, code: grpc.StatusCode, message: str, trailers: tuple[tuple[str, Any], ...] = ()) -> None:
        self.code, self.message = code.name, message
        told = dict(trailers)
        if details := told.get("grpc-status-details-bin"):
            info = ErrorInfo()
            assert Status.FromString(details).details[0].Unpack(info)
            self.reason = info.reason
        self.pushback = told.get("grpc-retry-pushback-ms", "")
        raise Aborted


@dataclass
class Server:
    """An edge with one method, which waits while `held` isn't set."""

    state: State = field(default_factory=lambda: state_of(EVERYTHING))
    concurrent: int = 8
    failure: Exception | None = None
    log: CallLog = field(default_factory=CallLog)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0

    def __post_init__(self) -> None:
        self.held.set()
        self.in_force = InForce(self.state)
        self.calls = Calls(self.in_force, FakeClock(), self.log)
        self.gate = Gate(self.concurrent, 64 << 20)
        self.edge = Edge(self.calls, self.gate, Connections(100, 30), 4 << 20)
        method = replace(VERIFY_TOKEN, max_bytes=1 << 20).served_by(self._verify)
        health = Health(("a.Service",))
        health.serving = True
        self.handlers = self.edge.methods("a.Service", [method]) | health.handlers(self.edge)
        self.handlers |= Reflection(("a.Service",)).handlers(self.edge)

    async def _verify(self, _caller: object, _request: object) -> pb.VerifyTokenResponse:
        self.running += 1
        await self.held.wait()
        self.running -= 1
        if self.failure is not None:
            raise self.failure
        return pb.VerifyTokenResponse()

    async def until(self, running: int) -> None:
        """Waits until so many calls are with the method."""
        while self.running < running:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)

    async def call(self, context: FakeContext, path: str = "/a.Service/VerifyToken") -> FakeContext:
        behaviour = self.handlers[path].stream_unary
        with suppress(Aborted):
            await behaviour(None, context)
        return context


def refusing(reason: Reason) -> State:
    state = state_of(EVERYTHING)
    return State(state.policy, state.keys, FakeIdentifier(refusal=Refusal(reason, "no")))


def stranger() -> State:
    state = state_of(EVERYTHING)
    return State(state.policy, state.keys, FakeIdentifier(STRANGER))


@pytest.mark.parametrize("version", [b"TLSv1.2", b"TLSv1.1", b"", b"TLSv1.3 "])
async def test_only_tls_1_3_is_answered(version: bytes) -> None:
    server = Server()
    context = await server.call(FakeContext(tls=version))
    assert (context.code, context.reason, context.reads) == ("UNAUTHENTICATED", "TLS_VERSION_UNSUPPORTED", 0)
    assert [(call.method, call.reason) for call in server.log.calls] == [("VerifyToken", "TLS_VERSION_UNSUPPORTED")]
    assert (await server.call(FakeContext())).code == "OK"


@pytest.mark.parametrize("messages", [[], [GOOD, GOOD], [GOOD, b""]])
async def test_a_call_has_exactly_one_message(messages: list[Any]) -> None:
    server = Server()
    context = await server.call(FakeContext(messages))
    assert (context.code, context.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert [call.reason for call in server.log.calls] == ["REQUEST_MALFORMED"]


async def test_a_message_over_its_methods_bound_is_refused_before_the_stream_goes_on() -> None:
    context = await Server().call(FakeContext([b"x" * ((1 << 20) + 1), SILENCE]))
    assert (context.reason, context.reads) == ("REQUEST_INVALID", 1)


async def test_a_caller_has_a_quarter_of_the_places_and_gets_each_back() -> None:
    server = Server()
    server.held.clear()
    for _ in range(3):
        waiting = [asyncio.create_task(server.call(FakeContext())) for _ in range(2)]
        await server.until(2)
        over = await server.call(FakeContext())
        assert (over.code, over.reason, over.reads) == ("UNAVAILABLE", "OVERLOADED", 0)
        server.held.set()
        assert [context.code for context in await asyncio.gather(*waiting)] == ["OK", "OK"]
        server.held.clear()
    assert [call.reason for call in server.log.calls].count("OVERLOADED") == 3
    assert [call.overload for call in server.log.calls if call.overload] == ["caller_calls"] * 3


@pytest.mark.parametrize(
    ("wait", "left", "pushback"),
    [
        (0.25, None, "250"),
        (1.0, 5.0, "1000"),
        (0.0001, 5.0, "1"),
        (60.0, 60.5, "60000"),
        (1.0, 1.0, "-1"),
        (1.0, 0.5, "-1"),
        (3600.0, 5.0, "-1"),
    ],
)
async def test_grpc_itself_retries_after_the_wait_unless_the_deadline_comes_first(
    wait: float, left: float | None, pushback: str
) -> None:
    context = FakeContext(left=left)
    await Server(failure=rate_limited("over the limit", {}, retry_after=wait)).call(context)
    assert (context.reason, context.pushback) == ("RATE_LIMITED", pushback)


@pytest.mark.parametrize("reason", [Reason.AUDIT_UNAVAILABLE, Reason.ROOM_NOT_PERMITTED])
async def test_a_refusal_without_a_wait_leaves_retries_to_the_client(reason: Reason) -> None:
    context = await Server(failure=Refusal(reason, "no")).call(FakeContext(left=5.0))
    assert (context.reason, context.pushback) == (reason, "")


async def test_a_request_waits_for_its_bytes_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livekit_auth_server.transport.grpc_aio.gate.PATIENCE", 0.01)
    server = Server(concurrent=100)
    slow = [asyncio.create_task(server.call(FakeContext([SILENCE]))) for _ in range(6)]
    await asyncio.sleep(0)
    over = await server.call(FakeContext())
    assert (over.code, over.reason, over.reads, over.pushback) == ("UNAVAILABLE", "OVERLOADED", 0, "1000")
    assert [call.overload for call in server.log.calls] == ["request_bytes"]
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert server.gate.bytes.heaviest() == ""


@pytest.mark.parametrize("end", ["failure", "cancelled", "silence", "refused"])
async def test_whatever_ends_a_call_gives_its_place_and_bytes_back(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT", 0.01)
    server = Server(failure=ValueError("x") if end == "failure" else None)
    with capture_logs():
        for _ in range(20):
            context = FakeContext([SILENCE] if end == "silence" else [b"\xff"] if end == "refused" else [GOOD])
            if end == "cancelled":
                server.held.clear()
                task = asyncio.create_task(server.call(context))
                await server.until(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                server.running = 0
            else:
                assert (await server.call(context)).reason in {"INTERNAL", "REQUEST_MALFORMED"}
    assert (server.gate.bytes.heaviest(), server.gate.bytes.waiting) == ("", {})


async def test_an_unlisted_caller_is_refused_without_a_look_at_its_request() -> None:
    server = Server(stranger())
    context = await server.call(FakeContext([SILENCE]))
    assert (context.code, context.reason, context.reads) == ("PERMISSION_DENIED", "CALLER_NOT_LISTED", 0)
    [told] = server.log.calls
    assert (told.caller, told.listed) == ("spiffe://example.org/stranger", False)


@pytest.mark.parametrize("path", ["/a.Service/VerifyToken", f"/{HEALTH}/Check"])
@pytest.mark.parametrize("reason", [Reason.CERTIFICATE_INVALID, Reason.CERTIFICATE_EXPIRED])
async def test_nothing_is_read_for_a_peer_without_an_identity(path: str, reason: Reason) -> None:
    server = Server(refusing(reason))
    context = await server.call(FakeContext([SILENCE]), path)
    assert (context.code, context.reason, context.reads) == ("UNAUTHENTICATED", reason, 0)
    assert [(call.reason, call.caller) for call in server.log.calls] == [(reason, "")]


@pytest.mark.parametrize("path", ["/a.Service/VerifyToken", f"/{HEALTH}/Check"])
async def test_a_revoked_caller_gets_no_method_and_no_health(path: str) -> None:
    server = Server()
    server.in_force.replace_deny_list(DenyList({CALLER: NEVER}))
    context = await server.call(FakeContext([SILENCE]), path)
    assert (context.reason, context.reads) == ("CERTIFICATE_REVOKED", 0)


async def test_a_caller_that_is_revoked_while_its_request_comes_gets_nothing() -> None:
    server = Server()
    context = FakeContext()

    async def read() -> object:
        server.in_force.replace_deny_list(DenyList({CALLER: NEVER}))
        return context.messages.pop() if context.messages else grpc.aio.EOF

    context.read = read  # type: ignore[method-assign]
    assert (await server.call(context)).reason == "CERTIFICATE_REVOKED"


async def test_a_caller_is_identified_once_for_a_call() -> None:
    state, identifier = state_of(EVERYTHING), FakeIdentifier()
    server = Server(State(state.policy, state.keys, identifier))
    assert (await server.call(FakeContext())).code == "OK"
    assert identifier.asked == 1


async def test_a_fault_of_the_edge_says_nothing_of_its_cause() -> None:
    server = Server()
    context = FakeContext()
    context.peer = lambda: str(1 / 0)  # type: ignore[method-assign]
    with capture_logs() as logs:
        await server.call(context)
    assert (context.code, context.reason) == ("INTERNAL", "INTERNAL")
    assert "division" not in context.message
    assert [entry["event"] for entry in logs] == ["unexpected fault"]


async def test_slow_requests_make_way_for_one_that_waits() -> None:
    """Six reads fill the caller's share of bytes; a seventh gets its turn long before their time is over."""
    server = Server(concurrent=100)
    slow = [asyncio.create_task(server.call(FakeContext([SILENCE]))) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):  # of 10 s that each of the slow ones may take
        assert (await server.call(FakeContext())).code == "OK"
    displaced = [task.result().reason for task in slow if task.done()]
    assert displaced
    assert set(displaced) == {"OVERLOADED"}
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert server.gate.bytes.heaviest() == ""


async def test_a_slow_request_that_nobody_waits_for_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livekit_auth_server.transport.grpc_aio.gate.SLOW", 0.01)
    server, context = Server(), FakeContext()
    read = context.read

    async def slowly() -> object:
        await asyncio.sleep(0.2)
        return await read()

    context.read = slowly  # type: ignore[method-assign]
    assert (await server.call(context)).code == "OK"


async def test_a_reflection_stream_has_a_number_of_requests_and_an_end() -> None:
    server = Server()
    behaviour = server.handlers[f"/{REFLECTION}/ServerReflectionInfo"].stream_stream
    context = FakeContext([b"\x3a\x00"] * 1000)
    answers = 0
    with suppress(Aborted):
        async for _ in behaviour(None, context):
            answers += 1
    assert (answers, context.code) == (100, "UNAVAILABLE")
    assert server.gate.bytes.heaviest() == ""


async def test_what_is_refused_on_a_reflection_stream_is_told() -> None:
    server = Server()
    context = FakeContext([b"\x3a\x00", b"\xff"])
    with suppress(Aborted):
        async for _ in server.handlers[f"/{REFLECTION}/ServerReflectionInfo"].stream_stream(None, context):
            pass
    assert (context.code, context.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert [(call.method, call.reason) for call in server.log.calls] == [("ServerReflectionInfo", "REQUEST_MALFORMED")]


async def test_health_is_asked_by_service() -> None:
    server, path = Server(), f"/{HEALTH}/Check"
    assert (await server.call(FakeContext([b""]), path)).code == "OK"
    assert (await server.call(FakeContext([b"\x0a\x09a.Service"]), path)).code == "OK"
    assert (await server.call(FakeContext([b"\x0a\x01x"]), path)).code == "NOT_FOUND"
    assert (await server.call(FakeContext([b"\xff"]), path)).reason == "REQUEST_MALFORMED"
    assert (await server.call(FakeContext([b""]), f"/{HEALTH}/Watch")).code == "UNIMPLEMENTED"
