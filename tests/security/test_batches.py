"""A caller that queues batches: others get their turn, a revocation is final, and what waits takes little memory."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.refusals import refusal, refused

if TYPE_CHECKING:
    from support.deployment import Deployment

pytestmark = pytest.mark.slow

WEB, OTHER = "spiffe://example.org/web", "spiffe://example.org/admin"
ASK = pb.IssueTokenRequest(project="alpha", role="guest", room="consult-1", identity="user-1")
LARGE = pb.BatchIssueTokensRequest(requests=[ASK] * 500).SerializeToString()
QUEUED = 30
SERVED = 5  # after which what waits has been looked at for long enough


class Flood:
    """Keeps so many batches of one caller queued until it is over; `served` are those that were answered."""

    def __init__(self, call: grpc.UnaryUnaryMultiCallable[bytes, bytes], batch: bytes) -> None:
        self._call = call
        self._batch, self._over = batch, False
        self.served = self.waiting = 0
        self.reasons: set[str] = set()
        self.begun = threading.Event()
        for _ in range(QUEUED):
            self._send()

    def _send(self) -> None:
        self.waiting += 1
        self._call.future(self._batch, timeout=60).add_done_callback(self._answered)

    def _answered(self, call: grpc.Future[bytes]) -> None:
        self.waiting -= 1
        error = call.exception()
        if error is None:
            self.served += 1
            self.begun.set()
        elif isinstance(error, grpc.RpcError) and error.code() is not grpc.StatusCode.CANCELLED:
            self.reasons.add(refused(error).reason)
            return
        if not self._over:
            self._send()

    def end(self) -> None:
        self._over = True


@pytest.fixture
def server(deployment: Deployment) -> Deployment:
    settings = deployment.directory / "server.yaml"
    listed = "dns_bundle: dns.pem\n  deny_list: deny.yaml\n"
    settings.write_text(settings.read_text().replace("dns_bundle: dns.pem\n", listed))
    (deployment.directory / "deny.yaml").write_text("version: 1\ndeny: []\n")
    deployment.start()
    return deployment


def flood(server: Deployment, batch: bytes = LARGE) -> Flood:
    made = Flood(server.raw(server.example_ca.issue(uris=[WEB]), "BatchIssueTokens"), batch)
    assert made.begun.wait(30), made.reasons
    return made


def test_a_batch_of_one_waits_for_no_queue_of_another_caller(server: Deployment) -> None:
    other = server.caller(OTHER)
    one = pb.BatchIssueTokensRequest(requests=[ASK])
    assert other.BatchIssueTokens(one, timeout=10).results[0].response.token
    flooding = flood(server)
    try:
        meanwhile = []
        for _ in range(5):
            before = flooding.served
            assert other.BatchIssueTokens(one, timeout=30).results[0].response.token
            meanwhile.append(flooding.served - before)
    finally:
        flooding.end()
    assert sorted(meanwhile)[2] <= QUEUED // 4, f"batches that were served first: {meanwhile}"


def test_a_revocation_is_final_for_what_is_queued(server: Deployment) -> None:
    flooding = flood(server)
    try:
        deny = server.directory / "deny.new.yaml"
        deny.write_text(f"version: 1\ndeny:\n  - {{id: '{WEB}'}}\n")
        deny.replace(server.directory / "deny.yaml")
        deadline = time.monotonic() + 60
        while flooding.reasons != {"CERTIFICATE_REVOKED"} or flooding.waiting:
            assert time.monotonic() < deadline, flooding.reasons
            time.sleep(0.01)
    finally:
        flooding.end()
    lines = [json.loads(line) for line in server.log.splitlines()]
    [revoked] = [number for number, line in enumerate(lines) if line["event"] == "reloaded"]
    decisions = {
        line["decision_id"] for line in lines[revoked:] if line.get("kind") == "decision" and line["permitted"]
    }
    withheld = {line["decision_id"] for line in lines if line.get("kind") == "withheld"}
    left = len(decisions - withheld)
    assert left == 0, f"{left} tokens left after the revocation"


def test_batches_that_wait_take_the_memory_of_their_bytes(server: Deployment) -> None:
    assert server.process
    process = psutil.Process(server.process.pid)
    agents = b"\x4a\x00" * 1000  # a room configuration's agents: two bytes each, and an object in memory
    config = b"\x5a" + bytes([len(agents) & 0x7F | 0x80, len(agents) >> 7]) + agents
    entry = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1").SerializeToString() + config
    assert len(pb.IssueTokenRequest.FromString(entry).room_config.agents) == 1000
    batch = (b"\x0a" + bytes([len(entry) & 0x7F | 0x80, len(entry) >> 7]) + entry) * 500
    assert refusal(lambda: server.caller(WEB).VerifyToken(pb.VerifyTokenRequest(token="a.b.c"))).reason
    before = peak = process.memory_info().rss
    flooding = flood(server, batch)
    try:
        deadline = time.monotonic() + 60
        while flooding.served < SERVED:
            assert time.monotonic() < deadline, flooding.reasons
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)
    finally:
        flooding.end()
    grown = (peak - before) / 1024 / 1024
    assert grown < 250, f"{grown:.0f} MiB for {QUEUED} batches of 1 MB"
