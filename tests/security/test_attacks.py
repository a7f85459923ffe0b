"""Attacks that once worked, kept as tests."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from livekit_auth.v1 import auth_service_pb2 as pb
from support.command_line import run
from support.deployment import Deployment
from support.refusals import code_of, refusal
from support.signing import access_token

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server for the attacks that leave it as it was."""
    deployment = Deployment(tmp_path_factory.mktemp("running"))
    deployment.write()
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


def start_with_stderr_in_a_pipe(deployment: Deployment) -> int:
    """Starts the server with a log that only this test reads; returns the reader's descriptor."""
    reader, writer = os.pipe()
    command = deployment.command("serve")
    deployment.process = subprocess.Popen(command, stderr=writer)
    os.close(writer)
    with os.fdopen(os.dup(reader), "rb", buffering=0) as log:
        while b'"event":"serving"' not in (line := log.readline()):
            assert line
    deployment.port = json.loads(line)["port"]
    return reader


def test_a_log_that_nobody_reads_stops_neither_verification_nor_sigterm(deployment: Deployment) -> None:
    reader = start_with_stderr_in_a_pipe(deployment)
    hooks = deployment.caller("spiffe://example.org/hooks")
    for _ in range(600):  # over 64 KiB of log lines
        assert hooks.VerifyToken(pb.VerifyTokenRequest(token=access_token()), timeout=5).identity == "user-1"
    web = deployment.caller("spiffe://example.org/web")
    assert refusal(lambda: web.IssueToken(ASK, timeout=5)).reason == "AUDIT_UNAVAILABLE"
    threading.Thread(target=lambda: all(iter(lambda: os.read(reader, 65536), b"")), daemon=True).start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert web.IssueToken(ASK, timeout=5).token
            break
        except Exception:  # noqa: BLE001 - until the reader has caught up
            time.sleep(0.1)
    else:
        pytest.fail("issuance didn't recover")
    assert deployment.stop() == 0


def test_a_log_whose_reader_is_gone_doesnt_end_the_server(deployment: Deployment) -> None:
    os.close(start_with_stderr_in_a_pipe(deployment))
    hooks = deployment.caller("spiffe://example.org/hooks")
    for _ in range(3):
        assert hooks.VerifyToken(pb.VerifyTokenRequest(token=access_token()), timeout=5).identity == "user-1"
    got = refusal(lambda: deployment.caller("spiffe://example.org/web").IssueToken(ASK, timeout=5))
    assert got.reason == "AUDIT_UNAVAILABLE"
    assert deployment.stop() == 0


def test_a_request_of_empty_messages_takes_little_memory(deployment: Deployment) -> None:
    deployment.start()
    assert deployment.process
    process = psutil.Process(deployment.process.pid)
    batch = deployment.raw(deployment.example_ca.issue(uris=["spiffe://example.org/web"]), "BatchIssueTokens")
    assert batch(b"\x0a\x00"), "one entry, which fails alone"
    before = process.memory_info().rss
    assert refusal(lambda: batch(b"\x0a\x00" * 2_000_000)).reason == "REQUEST_INVALID"
    for _ in range(6):
        assert refusal(lambda: batch(b"\x0a\x00" * 500_000)).reason == "REQUEST_INVALID"
    grown = (process.memory_info().rss - before) / 1024 / 1024
    assert grown < 200, f"{grown:.0f} MiB; six requests at 95 MiB each must not add up"


def test_a_token_with_a_monstrous_header_or_payload_is_refused_before_it_is_read(running: Deployment) -> None:
    hooks = running.caller("spiffe://example.org/hooks")
    deep = 400
    for header in ({"alg": "HS256", "typ": json.loads("[" * deep + "]" * deep)}, {"alg": "HS256", "x": "y" * 100_000}):
        got = refusal(partial(hooks.VerifyToken, pb.VerifyTokenRequest(token=unsigned(header, {}))))
        assert got.reason == "TOKEN_MALFORMED"
    big = unsigned({"alg": "HS256"}, {"iss": "APIalpha", "exp": 9_999_999_999, "x": [0] * 200_000})
    assert refusal(lambda: hooks.VerifyToken(pb.VerifyTokenRequest(token=big))).reason == "SIGNATURE_INVALID"
    signed = access_token(metadata="x" * 200_000)
    assert len(hooks.VerifyToken(pb.VerifyTokenRequest(token=signed)).metadata) == 200_000


def unsigned(header: object, payload: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(payload)}.{'A' * 43}"


def test_a_secret_in_the_wrong_place_of_the_settings_doesnt_show(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "c2VjcmV0LU1BUktFUi0wMTIzNDU2Nzg5YWJj"
    path = deployment.directory / "server.yaml"
    original = path.read_text()
    mistakes = [original + f"{secret}: x\n", original + f"extra: *{secret}\n"]
    mistakes += [
        original.replace("  alpha:", f"  {secret}:"),
        original.replace("file: alpha.yaml", f"file: 'A: {secret}'"),
    ]
    mistakes += [original.replace("file: alpha.yaml", f"environment: {secret}")]
    for mistake in mistakes:
        assert mistake != original
        path.write_text(mistake)
        assert run(monkeypatch, "check", "--config", path) == 2
        written = capfd.readouterr()
        assert secret not in written.err + written.out


def test_calls_that_never_send_a_request_lock_nobody_out(deployment: Deployment) -> None:
    """An unlisted caller once held every place for concurrent calls with headers alone."""
    deployment.write("limits: {concurrent_calls: 100}")
    deployment.start()
    waiting = threading.Event()

    def nothing() -> Iterator[bytes]:
        waiting.wait(20)
        yield b""

    who = deployment.raw_stream(deployment.example_ca.issue(uris=["spiffe://example.org/stranger"]), "GetCaller")
    silent = [who.future(nothing()) for _ in range(90)]
    try:
        time.sleep(0.5)
        assert deployment.caller("spiffe://example.org/web").IssueToken(ASK, timeout=5).token
        refused = [code_of(call.exception(timeout=1)) for call in silent if call.done()]
        over = [code for code in refused if code is grpc.StatusCode.UNAVAILABLE]
        assert len(over) >= 60, "all over a quarter of the places"
        assert set(refused) - set(over) <= {grpc.StatusCode.INVALID_ARGUMENT}, "those whose time for a request is over"
    finally:
        for call in silent:
            call.cancel()
        waiting.set()


def test_health_is_not_watched(running: Deployment) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel(running.example_ca.issue(uris=["spiffe://example.org/web"])))
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_with_two_requests_or_none_is_malformed(running: Deployment) -> None:
    call = running.raw_stream(running.example_ca.issue(uris=["spiffe://example.org/web"]), "IssueToken")
    for requests in ([], [ASK.SerializeToString()] * 2):
        assert refusal(partial(call, iter(requests), timeout=5)).reason == "REQUEST_MALFORMED"


def test_a_policy_that_others_can_change_is_refused(deployment: Deployment) -> None:
    (deployment.directory / "policy.yaml").chmod(0o666)
    command = deployment.command("serve")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "can be changed by others" in done.stderr
