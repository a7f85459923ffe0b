"""What one client with a certificate can take from the others: calls, bytes, connections, and the loop itself."""

from __future__ import annotations

import datetime as dt
import gzip
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import Deployment
from support.pki import NOW, Authority
from support.ports import free_port
from support.probes import Probes
from support.raw_http2 import RawConnection
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.pki import Credential

pytestmark = pytest.mark.slow

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
SERVICE = "/livekit_auth.v1.AuthService/"
CHECK = "/grpc.health.v1.Health/Check"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def probes() -> Probes:
    """The server's metrics."""
    return Probes(free_port())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, probes: Probes) -> Iterator[Deployment]:
    """One server with few places: 100 calls, so 25 per caller, and 80 connections, so 20 per caller."""
    server = Deployment(tmp_path_factory.mktemp("deployment"))
    server.write(f"limits: {{concurrent_calls: 100, connections: 80, first_call: 2}}\nmetrics: 127.0.0.1:{probes.port}")
    settings = server.directory / "server.yaml"
    settings.write_text(settings.read_text().replace("  dns_bundle", "  deny_list: deny.yaml\n  dns_bundle"))
    (server.directory / "deny.yaml").write_text("version: 1\ndeny:\n  - {id: spiffe://example.org/revoked}\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(server: Deployment) -> Iterator[Callable[..., RawConnection]]:
    """Opens raw connections, which end with the test."""
    opened: list[RawConnection] = []

    def connect(credential: Credential) -> RawConnection:
        opened.append(RawConnection(server.port, credential, server.server_ca))
        opened[-1].receive(1)
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def certificate(server: Deployment, name: str) -> Credential:
    return server.example_ca.issue(uris=[f"spiffe://example.org/{name}"])


def issues(server: Deployment) -> bool:
    """Whether a listed caller gets its token."""
    return bool(server.caller("spiffe://example.org/web").IssueToken(ASK, timeout=20).token)


def test_a_path_that_isnt_utf8_ends_nothing(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    """One such call once ended the loop that accepts calls, and the process lived on without serving."""
    for path in (b"/\xff\xfe/x", b"\xc3\x28", SERVICE.encode() + b"\xff", b"/", b"//", b"/\xed\xa0\x80"):
        connection = connect(certificate(server, "stranger"))
        stream = connection.open(path, end=True)
        assert connection.wait_for_end({stream}, 10)
    assert issues(server)


def test_headers_that_arent_utf8_fill_no_log(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    connection = connect(certificate(server, "stranger"))
    before = len(server.log)
    streams = {
        connection.open(SERVICE + "IssueToken", [(b"x-odd", b"\xff\xfe"), (b"user-agent", b"\xc3\x28")], end=True)
        for _ in range(20)
    }
    assert connection.wait_for_end(streams, 10) == streams
    assert len(server.log) - before < 20_000, "a line each, and no traceback"
    assert "Traceback" not in server.log


@pytest.mark.parametrize("path", [CHECK, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"])
def test_silent_calls_of_grpcs_own_services_lock_nobody_out(
    server: Deployment, connect: Callable[..., RawConnection], path: str
) -> None:
    """They once went round the shares and the request's timeout."""
    connections = [connect(certificate(server, "stranger")) for _ in range(3)]
    streams = [{connection.open(path) for _ in range(50)} for connection in connections]
    assert issues(server)
    refused = [len(c.wait_for_end(s, 1)) for c, s in zip(connections, streams, strict=True)]
    assert sum(refused) >= 150 - 25
    for connection, mine in zip(connections, streams, strict=True):
        assert connection.wait_for_end(mine, 30) == mine, "the rest end when their request's time is over"


@pytest.mark.parametrize("who", ["nobody", "revoked"])
def test_grpcs_own_services_answer_nobody_without_an_identity(server: Deployment, who: str) -> None:
    credential = server.example_ca.issue(common_name="web") if who == "nobody" else certificate(server, "revoked")
    health = health_pb2_grpc.HealthStub(server.channel(credential))
    assert refusal(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=20)).code in {
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    }
    reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel(credential))
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    got = refusal(lambda: list(reflection.ServerReflectionInfo(iter([ask]), timeout=20)))
    assert got.code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}


def test_health_answers_a_caller_that_the_policy_doesnt_list(server: Deployment) -> None:
    health = health_pb2_grpc.HealthStub(server.channel(certificate(server, "prober")))
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == health_pb2.HealthCheckResponse.SERVING


def test_two_certificates_of_one_caller_have_one_share(
    server: Deployment, connect: Callable[..., RawConnection]
) -> None:
    streams = {}
    for _ in range(2):
        connection = connect(certificate(server, "web"))
        streams[connection] = {connection.open(SERVICE + "IssueToken") for _ in range(20)}
    ended = sum(len(connection.wait_for_end(mine, 1)) for connection, mine in streams.items())
    assert ended >= 2 * 20 - 25
    for connection in streams:
        connection.close()


def test_messages_that_never_end_take_little_memory(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    """Each stream announces 4 MiB and sends all but the last byte; 8 connections of them once took 3.7 GiB."""
    assert server.process
    process = psutil.Process(server.process.pid)
    assert issues(server)
    before = process.memory_info().rss
    for name, method in (("web", "IssueToken"), ("stranger", "GetCaller"), ("hooks", "VerifyToken")):
        connection = connect(certificate(server, name))
        streams = [connection.open(SERVICE + method) for _ in range(100)]
        connection.receive(0.5)
        for stream in streams:
            if stream not in connection.ended:
                connection.announce(stream, 4 * MIB)
        connection.fill(dict.fromkeys(streams, 4 * MIB - 1), idle=0.3)
        grown = (process.memory_info().rss - before) / MIB
        assert grown < 150, f"{grown:.0f} MiB more"
        assert issues(server)


def test_a_message_that_inflates_takes_little_memory(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    """256 MiB of zeros are 260 KiB compressed."""
    assert server.process
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    connection = connect(certificate(server, "web"))
    stream = connection.open(SERVICE + "IssueToken", [(b"grpc-encoding", b"gzip")])
    bomb = gzip.compress(bytes(256 * MIB), 9)
    connection.announce(stream, len(bomb), compressed=True)
    connection.pour(stream, bomb)
    highest = before
    while not connection.wait_for_end({stream}, 0.05) and not connection.closed:
        highest = max(highest, process.memory_info().rss)
    assert highest - before < 50 * MIB
    assert issues(server)


def test_connections_without_a_call_are_counted(server: Deployment, probes: Probes) -> None:
    """Among them those whose handshake fails: no certificate, another CA's, an expired one, no TLS at all."""
    before = counted(probes, "ended_without_call")
    late = server.example_ca.issue(uris=["spiffe://example.org/web"], not_after=NOW - dt.timedelta(minutes=1))
    for credential in (Authority.create("another CA").issue(uris=["spiffe://example.org/web"]), late):
        with suppress(OSError), RawConnection(server.port, credential, server.server_ca) as refused:
            while not refused.closed:
                refused.receive(0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert plain.recv(1) == b""
    deadline = time.monotonic() + 20
    while counted(probes, "ended_without_call") < before + 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted(probes, "ended_without_call") >= before + 3


def counted(probes: Probes, event: str) -> int:
    pattern = rf'^livekit_auth_connections_total{{event="{event}"}} ([0-9.]+)'
    (value,) = re.findall(pattern, probes.metrics(), re.MULTILINE)
    return int(float(value))


def test_a_caller_has_a_quarter_of_the_connections(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    """By identity: each connection has a certificate of its own."""
    opened = []
    for _ in range(26):
        connection = connect(certificate(server, "hooks"))
        stream = connection.open(SERVICE + "GetCaller")
        connection.message(stream, b"")
        assert connection.wait_for_end({stream}, 10)
        opened.append(connection)
    assert 6 <= len(ended(opened, 6)) <= 10, "those over the bound; 20 of 80 may stay"
    assert issues(server)


def test_peers_without_an_identity_have_few_connections_together(
    server: Deployment, connect: Callable[..., RawConnection]
) -> None:
    opened = []
    for number in range(12):
        credential = server.example_ca.issue(common_name=f"nobody {number}")
        connection = connect(credential)
        stream = connection.open(CHECK, end=True)
        assert connection.wait_for_end({stream}, 10)
        opened.append(connection)
    assert 4 <= len(ended(opened, 4)) < 12


def test_a_connection_without_a_call_is_closed_soon(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    silent, used = connect(certificate(server, "web")), connect(certificate(server, "web"))
    stream = used.open(SERVICE + "GetCaller")
    used.message(stream, b"")
    assert used.wait_for_end({stream}, 10)
    assert ended([silent, used], 1) == [silent]


def ended(connections: list[RawConnection], wanted: int) -> list[RawConnection]:
    """Those that the server closes, until this many are and no more follow."""
    deadline = time.monotonic() + 20
    settled = deadline
    while time.monotonic() < min(deadline, settled):
        for connection in connections:
            if not connection.closed:
                connection.receive(0.01)
        if sum(connection.closed for connection in connections) >= wanted and settled == deadline:
            settled = time.monotonic() + 2.5  # longer than the server takes between two looks
    return [connection for connection in connections if connection.closed]


def test_a_self_made_chain_costs_others_nothing(server: Deployment, connect: Callable[..., RawConnection]) -> None:
    """A leaf of the real CA beside eight junk intermediates, new ones on each connection."""
    for _ in range(12):
        leaf = certificate(server, "stranger")
        junk = tuple(Authority.create("example.org CA").certificate for _ in range(8))
        connection = connect(type(leaf)(leaf.certificate, leaf.key, junk))
        streams = {connection.open(SERVICE + "IssueToken", end=True) for _ in range(10)}
        assert connection.wait_for_end(streams, 10) == streams
    assert issues(server)
