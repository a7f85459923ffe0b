"""Traces as a collector gets them from the real server: whose they are, what they say, and what they never say."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from livekit_auth import AuthClient, sync
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import SECRETS, Deployment, environment
from support.otlp_collector import Collector, attributes, collecting
from support.ports import free_port
from support.refusals import refusal
from support.signing import event, webhook_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

pytestmark = pytest.mark.slow

SERVICE = "livekit_auth.v1.AuthService"
WEB = "spiffe://example.org/web"
ROOM, IDENTITY = "consult-MARKER", "user-MARKER"
ASK = pb.IssueTokenRequest(role="guest", room=ROOM, identity=IDENTITY, metadata="metadata-MARKER")
WHO = pb.GetCallerRequest()
SERVER = 2  # SpanKind of OTLP
HEADER = "Bearer header-MARKER"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("traced"))
    deployment.write(f"tracing: {{endpoint: '{collector.endpoint}', headers_file: headers}}")
    deployment.private("headers", f"Authorization: {HEADER}\n")
    with pytest.MonkeyPatch.context() as patch:
        dead = f"http://127.0.0.1:{free_port()}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.setenv(name, dead)
        patch.setenv("NO_PROXY", "")
        patch.setenv("no_proxy", "")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", dead)
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-environment=env-MARKER")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        deployment.start()
    yield deployment
    assert deployment.stop() == 0


@pytest.fixture(scope="module")
def web(server: Deployment) -> AuthServiceStub:
    return server.caller(WEB)


def new_trace() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(8)


def traced(trace: str, span: str, flags: str = "01", state: str = "") -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{trace}-{span}-{flags}"), *([("tracestate", state)] if state else []))


def of_trace(collector: Collector, trace: str) -> Span:
    return collector.wait(lambda span: span.trace_id.hex() == trace)


def test_a_call_is_a_span_below_its_callers(server: Deployment, web: AuthServiceStub, collector: Collector) -> None:
    trace, parent = new_trace()
    before = time.time_ns()
    issued = web.IssueToken(ASK, metadata=traced(trace, parent, state="rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"))
    span = of_trace(collector, trace)
    assert (span.parent_span_id.hex(), span.kind, span.name) == (parent, SERVER, f"{SERVICE}/IssueToken")
    assert span.trace_state == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    assert before - 1e9 < span.start_time_unix_nano < span.end_time_unix_nano < time.time_ns() + 1e9
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/IssueToken",
        "rpc.response.status_code": "OK",
        "livekit_auth.decision_id": issued.decision_id,
    }
    assert server.audit(issued.decision_id)["trace_id"] == trace


def test_a_denial_says_why_and_is_no_error(server: Deployment, web: AuthServiceStub, collector: Collector) -> None:
    trace, parent = new_trace()
    request = pb.IssueTokenRequest(role="guest", room="board-MARKER", identity=IDENTITY)
    denied = refusal(lambda: web.IssueToken(request, metadata=traced(trace, parent)))
    span = of_trace(collector, trace)
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/IssueToken",
        "rpc.response.status_code": "PERMISSION_DENIED",
        "livekit_auth.reason": "ROOM_NOT_PERMITTED",
        "livekit_auth.decision_id": denied.metadata["decision_id"],
    }
    assert not span.status.code
    assert server.audit(denied.metadata["decision_id"])["trace_id"] == trace


def test_log_lines_name_the_trace(server: Deployment, web: AuthServiceStub) -> None:
    trace, parent = new_trace()
    web.GetCaller(WHO, metadata=traced(trace, parent, "00"))
    [line] = [json.loads(line) for line in server.log.splitlines() if trace in line]
    assert (line["event"], line["method"], line["trace_id"]) == ("call", "GetCaller", trace)


def test_a_caller_that_does_not_record_its_trace_gets_no_span(web: AuthServiceStub, collector: Collector) -> None:
    unrecorded, _ = new_trace()
    recorded, parent = new_trace()
    web.GetCaller(WHO, metadata=traced(unrecorded, parent, "00"))
    web.GetCaller(WHO, metadata=traced(recorded, parent))
    of_trace(collector, recorded)
    assert unrecorded not in {span.trace_id.hex() for span in collector.spans}


@pytest.mark.parametrize("headers", ["upper", "long", "zeros"])
def test_a_malformed_traceparent_starts_a_trace_of_its_own(
    web: AuthServiceStub, collector: Collector, server: Deployment, headers: str
) -> None:
    trace, parent = new_trace()
    sent = {
        "upper": traced(f"{'A' * 16}{trace[16:]}", parent),
        "long": (("traceparent", f"00-{trace}-{parent}-01-more"),),
        "zeros": traced("0" * 32, parent),
    }[headers]
    issued = web.IssueToken(ASK, metadata=sent)
    span = collector.wait(lambda span: attributes(span).get("livekit_auth.decision_id") == issued.decision_id)
    assert (span.parent_span_id, span.trace_state) == (b"", "")
    assert span.trace_id.hex() not in {trace, "0" * 32}
    assert server.audit(issued.decision_id)["trace_id"] == ""


def test_a_malformed_tracestate_is_left_out(web: AuthServiceStub, collector: Collector) -> None:
    trace, parent = new_trace()
    web.GetCaller(WHO, metadata=traced(trace, parent, state="state MARKER without a value"))
    assert of_trace(collector, trace).trace_state == ""


def test_spans_say_nothing_of_what_was_asked_or_of_who_asked(
    server: Deployment, web: AuthServiceStub, collector: Collector
) -> None:
    trace, parent = new_trace()
    token = web.IssueToken(ASK).token
    body = event(room={"name": ROOM})
    hooks = server.caller("spiffe://example.org/hooks")
    hooks.VerifyWebhook(pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body)))
    hooks.VerifyToken(pb.VerifyTokenRequest(token=token), metadata=traced(trace, parent))
    of_trace(collector, trace)
    every = b"".join(body for _, _, body in collector.requests)
    assert b"MARKER" not in every
    assert b"example.org" not in every
    assert b"eyJ" not in every
    assert not any(secret.encode() in every for secret in SECRETS.values())


def test_spans_go_where_the_settings_say_with_their_headers_alone(collector: Collector, web: AuthServiceStub) -> None:
    """The environment names a proxy that isn't there, another endpoint and another header."""
    trace, parent = new_trace()
    web.GetCaller(WHO, metadata=traced(trace, parent))
    of_trace(collector, trace)
    for path, headers, _ in collector.requests:
        assert path == "/v1/traces"
        assert headers.get("authorization") == HEADER
        assert "x-environment" not in headers
    [resource] = {
        tuple((a.key, a.value.string_value) for a in e.resource_spans[0].resource.attributes) for e in collector.exports
    }
    assert dict(resource)["service.name"] == "livekit-auth"
    assert dict(resource)["deployment.environment.name"] == "test"


# A collector that doesn't do its part


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    yield deployment
    if deployment.process is not None:
        deployment.stop()


def start(deployment: Deployment, endpoint: str, more: str = "", ratio: float = 1) -> AuthServiceStub:
    deployment.private("headers", f"X-Key: {HEADER}\n")
    deployment.write(f"tracing: {{endpoint: '{endpoint}', ratio: {ratio}, headers_file: headers}}\n{more}")
    deployment.start()
    return deployment.caller(WEB)


def logged(deployment: Deployment, text: str, seconds: float = 20) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in deployment.log.splitlines():
            if text in line:
                return json.loads(line)
        time.sleep(0.05)
    raise AssertionError(deployment.log[-2000:])


def test_unavailable_collector_is_reported_once(deployment: Deployment) -> None:
    port, metrics = free_port(), free_port()
    web = start(deployment, f"http://127.0.0.1:{port}/v1/traces", f"metrics: 127.0.0.1:{metrics}")
    started = time.monotonic()
    for _ in range(100):
        web.GetCaller(WHO)
    assert time.monotonic() - started < 2
    assert logged(deployment, "spans can't be exported")["problem"] == "ConnectionError"
    with collecting(port) as collector:
        web.GetCaller(WHO)
        logged(deployment, "spans are exported again")
        assert collector.spans
    with urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'livekit_auth_spans_total{outcome="failed"} ' in text
    assert 'livekit_auth_spans_total{outcome="ended"} 101.0' in text
    assert deployment.log.count("spans can't be exported") == 1
    assert "MARKER" not in deployment.log + text


def test_a_collector_that_hangs_slows_no_call_and_no_shutdown(deployment: Deployment) -> None:
    with collecting() as collector:
        collector.hanging.set()
        web = start(deployment, collector.endpoint)
        web.GetCaller(WHO)
        deadline = time.monotonic() + 15
        while not collector.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        assert collector.requests
        started = time.monotonic()
        for _ in range(2500):  # more than the queue holds
            web.GetCaller(WHO)
        assert time.monotonic() - started < 15
        started = time.monotonic()
        assert deployment.stop() == 0
        assert time.monotonic() - started < 6
        assert "last spans not exported in time" in deployment.log


def test_what_is_queued_leaves_before_the_server_ends(deployment: Deployment) -> None:
    with collecting() as collector:
        web = start(deployment, collector.endpoint)
        trace, parent = new_trace()
        web.GetCaller(WHO, metadata=traced(trace, parent))
        assert deployment.stop() == 0
        assert [span.trace_id.hex() for span in collector.spans] == [trace]


@pytest.mark.parametrize("status", [401, 307])
def test_a_collector_that_refuses_is_not_quoted_and_a_redirect_not_followed(
    deployment: Deployment, status: int
) -> None:
    with collecting() as collector, collecting() as elsewhere:
        collector.status, collector.body = status, b"you sent " + HEADER.encode()
        collector.headers = {"location": elsewhere.endpoint}
        web = start(deployment, collector.endpoint)
        web.GetCaller(WHO)
        assert logged(deployment, "spans can't be exported")["problem"] == f"HTTP status {status}"
        assert (bool(collector.requests), elsewhere.requests) == (True, [])
        assert deployment.stop() == 0
        assert "MARKER" not in deployment.log


def test_a_part_of_the_calls_is_recorded_where_the_caller_leaves_it_open(deployment: Deployment) -> None:
    with collecting() as collector:
        web = start(deployment, collector.endpoint, ratio=0)
        trace, parent = new_trace()
        for _ in range(20):
            web.GetCaller(WHO)
        web.GetCaller(WHO, metadata=traced(trace, parent))
        assert deployment.stop() == 0
        assert [span.trace_id.hex() for span in collector.spans] == [trace]


def test_without_the_setting_opentelemetry_is_not_even_imported() -> None:
    code = (
        "import sys; import livekit_auth_server.serve.wiring; print([m for m in sys.modules if 'opentelemetry' in m])"
    )
    code = f"from livekit_auth_server.transport.tls import pin_tls13; pin_tls13(); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"


async def test_the_python_clients_hand_on_the_span_that_is_current(server: Deployment, collector: Collector) -> None:
    certificate, key = server.example_ca.issue(uris=[WEB]).write(server.directory, "client")
    at = f"localhost:{server.port}"
    files: dict[str, Any] = {"ca": server.directory / "server-ca.pem", "cert": certificate, "key": key}
    for number in range(2):
        trace_id, span_id = new_trace()
        context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1))
        with use_span(NonRecordingSpan(context)):
            if number:
                async with AuthClient(at, **files) as client:
                    await client.get_caller()
            else:
                with sync.AuthClient(at, **files) as client:
                    client.get_caller()
        assert of_trace(collector, trace_id).parent_span_id.hex() == span_id
