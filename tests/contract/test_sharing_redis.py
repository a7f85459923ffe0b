"""Servers that share a Redis: one budget, one memory of acknowledgements, and what happens when Redis is gone."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import POLICY, Deployment
from support.pki import SERVER
from support.probes import Probes
from support.redis_server import RedisServer, free_port
from support.refusals import refusal, refused
from support.signing import event, webhook_token
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

pytestmark = pytest.mark.slow

LIMITED = "spiffe://example.org/limited"
BUSY = "spiffe://example.org/busy"
MORE = f"""\
  - {{id: {LIMITED}, limits: [{{rate: 6/m}}]}}
  - {{id: {BUSY}, limits: [{{rate: 9999999/m}}]}}
"""
ASK = pb.GetCallerRequest()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def deploy(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Callable[..., Deployment]]:
    """Starts servers on the one Redis, all with the same CAs, so that a caller is the same caller to each."""
    started: list[Deployment] = []

    def start(settings: str = "", extra: str = "") -> Deployment:
        like = started[0] if started else None
        authorities = {n: getattr(like, n) for n in ("example_ca", "other_ca", "dns_ca", "server_ca")} if like else {}
        deployment = Deployment(tmp_path_factory.mktemp("server"), **authorities)
        deployment.write(f"redis: {{url: 'redis://127.0.0.1:{redis.port}'{settings}}}\n{extra}")
        (deployment.directory / "policy.yaml").write_text(POLICY + MORE)
        started.append(deployment)
        deployment.start()
        return deployment

    yield start
    for deployment in started:
        assert deployment.stop() == 0


def reason(stub: AuthServiceStub) -> str:
    try:
        stub.GetCaller(ASK)
    except grpc.RpcError as error:
        return refused(error).reason
    return "OK"


def passes(*stubs: AuthServiceStub, at_most: int = 20) -> int:
    """How many calls pass, in turns over the stubs, before one is refused."""
    return next((number for number in range(at_most) if reason(stubs[number % len(stubs)]) == "RATE_LIMITED"), at_most)


def says(server: Deployment, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, server.log.splitlines()) if line["event"] == event]


def test_two_servers_share_a_limit(deploy: Callable[..., Deployment]) -> None:
    one, other = deploy(), deploy()
    assert passes(one.caller(LIMITED), other.caller(LIMITED)) == 6
    for server in (one, other):
        told = refusal(partial(server.caller(LIMITED).GetCaller, ASK))
        assert told.retry_after is not None
        assert 50 < told.retry_after <= 60
    assert says(one, "serving")[0]["shared_limits"] is True


def test_two_servers_share_acknowledgements(deploy: Callable[..., Deployment]) -> None:
    one, other = deploy(), deploy()
    body = event()
    ask = pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body))
    consumer = "spiffe://example.org/hooks"
    first = one.caller(consumer).VerifyWebhook(ask)
    assert first.duplicate_status == pb.DUPLICATE_STATUS_NEW
    one.caller(consumer).AckWebhook(acknowledgement(first, body))
    again = other.caller(consumer).VerifyWebhook(ask)
    assert again.duplicate_status == pb.DUPLICATE_STATUS_DUPLICATE
    other_caller = other.caller("spiffe://example.org/hooks2").VerifyWebhook(ask)
    assert other_caller.duplicate_status == pb.DUPLICATE_STATUS_NEW


def acknowledgement(answer: pb.VerifyWebhookResponse, body: bytes) -> pb.AckWebhookRequest:
    return pb.AckWebhookRequest(
        project=answer.project, event_id=answer.event.id, body_sha256=hashlib.sha256(body).digest()
    )


def test_without_redis_acknowledgements_are_unknown_and_limits_local(
    deploy: Callable[..., Deployment], redis: RedisServer
) -> None:
    server = deploy()
    stub, hooks = server.caller(LIMITED), server.caller("spiffe://example.org/hooks")
    assert passes(stub) == 6
    redis.kill()
    eventually(lambda: reason(stub) == "OK")  # a limit of its own, of which one is used now
    assert passes(stub) == 5
    body = event()
    answer = hooks.VerifyWebhook(pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body)))
    assert answer.duplicate_status == pb.DUPLICATE_STATUS_UNKNOWN
    told = refusal(lambda: hooks.AckWebhook(acknowledgement(answer, body)))
    assert (told.code, told.reason) == ("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    redis.start()
    eventually(lambda: says(server, "Redis available again"))
    assert passes(stub) == 6
    hooks.AckWebhook(acknowledgement(answer, body))


def test_without_redis_calls_are_refused_where_that_is_configured(
    deploy: Callable[..., Deployment], redis: RedisServer
) -> None:
    server = deploy(", when_unavailable: refuse")
    stub, free = server.caller(LIMITED), server.caller("spiffe://example.org/web")
    stub.GetCaller(ASK)
    redis.kill()
    told = refusal(lambda: stub.GetCaller(ASK))
    assert (told.code, told.reason, told.retry_after) == ("UNAVAILABLE", "LIMITS_UNAVAILABLE", None)
    free.GetCaller(ASK)  # has no limits
    redis.start()
    eventually(lambda: reason(stub) == "OK")
    assert passes(stub) == 5


def test_a_server_starts_without_redis_and_finds_it_later(
    deploy: Callable[..., Deployment], redis: RedisServer
) -> None:
    redis.kill()
    server = deploy()
    assert [line["level"] for line in says(server, "Redis unavailable")] == ["warning"]
    assert passes(server.caller(LIMITED)) == 6
    redis.start()
    eventually(lambda: says(server, "Redis available again"))
    assert passes(server.caller(LIMITED)) == 6


@dataclass
class Load:
    """Callers that call without a pause. Remembers how each call ended and how long it took, in seconds."""

    server: Deployment
    results: list[tuple[str, float]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.threads = [threading.Thread(target=self._run, args=(self.server.caller(BUSY),)) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)

    def _run(self, stub: AuthServiceStub) -> None:
        while not self.stopping.is_set():
            started, outcome = time.monotonic(), "OK"
            try:
                stub.GetCaller(ASK, timeout=10)
            except grpc.RpcError as error:
                outcome = refused(error).reason or str(error)
            self.results.append((outcome, time.monotonic() - started))


@pytest.mark.parametrize(("when_unavailable", "meanwhile"), [("local", "OK"), ("refuse", "LIMITS_UNAVAILABLE")])
@pytest.mark.parametrize("fault", ["paused", "killed"])
def test_redis_lost_under_load_delays_no_call_and_is_found_again(
    deploy: Callable[..., Deployment], redis: RedisServer, when_unavailable: str, meanwhile: str, fault: str
) -> None:
    metrics = free_port()
    settings = f", timeout: 0.2, when_unavailable: {when_unavailable}"
    server = deploy(settings, f"metrics: 127.0.0.1:{metrics}")
    with Load(server) as load:
        time.sleep(0.5)
        before = len(load.results)
        redis.pause() if fault == "paused" else redis.kill()
        eventually(lambda: gauge(metrics, "livekit_auth_redis_up") == 0)
        assert gauge(metrics, f'livekit_auth_limits_fallback{{state="{when_unavailable}"}}') == 1
        required = ["Redis unavailable, and redis.when_unavailable is refuse"] if when_unavailable == "refuse" else []
        assert Probes(metrics).state()["reasons"] == required
        gone = len(load.results)
        time.sleep(1.5)
        away = load.results[gone:]
        redis.resume() if fault == "paused" else redis.start()
        eventually(lambda: gauge(metrics, "livekit_auth_redis_up") == 1)
        assert gauge(metrics, 'livekit_auth_limits_fallback{state="shared"}') == 1
        assert Probes(metrics).ready()
        back = len(load.results)
        time.sleep(0.5)
    assert Counter(outcome for outcome, _ in load.results[:before]) == {"OK": before}
    assert {outcome for outcome, _ in away} == {meanwhile}
    assert len(away) > 100
    assert sum(seconds > 0.15 for _, seconds in away) <= 4
    assert {outcome for outcome, _ in load.results[back + 8 :]} == {"OK"}
    assert max(seconds for _, seconds in load.results) < 1.0
    assert len(says(server, "Redis unavailable")) == 1
    assert [len(says(server, event)) for event in ("Redis available", "Redis available again")] == [1, 1]


def gauge(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def with_password(redis: RedisServer, server: Deployment, password: str) -> None:
    server.private("password", f"{password}\n")
    server.write(f"redis: {{url: 'redis://127.0.0.1:{redis.port}', password_file: password}}")


def test_the_password_comes_from_a_file_and_a_new_one_needs_no_restart(tmp_path: Path, deployment: Deployment) -> None:
    with RedisServer(tmp_path, "the-first-MARKER") as redis:
        with_password(redis, deployment, redis.password)
        deployment.start()
        assert len(says(deployment, "Redis available")) == 1
        with redis.client() as client:
            client.config_set("requirepass", "the-second-MARKER")
            deployment.private("password", "the-second-MARKER\n")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            redis.password = "the-second-MARKER"
        body = event()
        ask = pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body))
        hooks = deployment.caller("spiffe://example.org/hooks")
        eventually(lambda: hooks.VerifyWebhook(ask).duplicate_status == pb.DUPLICATE_STATUS_NEW)
        assert deployment.stop() == 0
    assert "MARKER" not in deployment.log


def test_a_wrong_password_stops_the_start_and_is_not_shown(tmp_path: Path, deployment: Deployment) -> None:
    with RedisServer(tmp_path, "the-right-MARKER") as redis:
        with_password(redis, deployment, "the-wrong-MARKER")
        with pytest.raises(AssertionError, match="redis: Redis refuses the user or the password"):
            deployment.start()
    assert "MARKER" not in deployment.log


def test_a_password_that_others_can_read_stops_the_start(redis: RedisServer, deployment: Deployment) -> None:
    with_password(redis, deployment, "MARKER")
    (deployment.directory / "password").chmod(0o604)
    with pytest.raises(AssertionError, match="password: can be read by others; run: chmod o="):
        deployment.start()
    assert "MARKER" not in deployment.log


def test_redis_over_tls_is_checked_against_its_ca(tmp_path: Path, deployment: Deployment) -> None:
    certificate, key = deployment.server_ca.issue(dns=["localhost"], usages=[SERVER]).write(tmp_path, "redis")
    (tmp_path / "ca.pem").write_bytes(deployment.server_ca.leaf_pem)
    port = free_port()
    options: list[object] = ["--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key]
    options += ["--tls-ca-cert-file", tmp_path / "ca.pem", "--tls-auth-clients", "no"]
    with RedisServer(tmp_path, options=tuple(map(str, options))):
        deployment.write(f"redis: {{url: 'rediss://localhost:{port}', ca: server-ca.pem}}")
        deployment.start()
        assert says(deployment, "Redis available")
        assert deployment.stop() == 0
        deployment.write(f"redis: {{url: 'rediss://localhost:{port}', ca: example.pem}}")
        deployment.start()
        (away,) = says(deployment, "Redis unavailable")
        assert "certificate verify failed" in away["problem"]
