"""A server whose certificate and bundles come from a SPIFFE agent, and clients whose certificates do."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from spiffe._proto import workload_pb2

from livekit_auth import ConfigError, Unavailable, sync
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import POLICY, Deployment
from support.fake_agent import FakeAgent, fake_agent, response
from support.pki import Authority, Credential
from support.ports import free_port
from support.refusals import refused
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

pytestmark = pytest.mark.slow

SERVER = "spiffe://example.org/livekit-auth"
WEB = "spiffe://example.org/web"
OTHER = "spiffe://other.org/web"
WHO = pb.GetCallerRequest()


def soon(condition: Callable[[], bool], seconds: float = 5) -> None:
    eventually(condition, seconds)


class World:
    """A deployment whose trust comes from the agent; example.org's CA signs the server's certificate too."""

    def __init__(self, deployment: Deployment, agent: FakeAgent) -> None:
        self.deployment, self.agent = deployment, agent
        self.ca = deployment.example_ca
        self.other = deployment.other_ca
        deployment.server_ca = deployment.example_ca
        self.metrics = free_port()

    def svid(self, ca: Authority | None = None, *, rsa: bool = False, dns: str = "localhost") -> Credential:
        return (ca or self.ca).issue(uris=[SERVER], dns=[dns] if dns else [], rsa_key=rsa)

    def send(self, ca: Authority | None = None, **federated: Authority) -> None:
        """The server's SVID and bundles, new; a federated domain is written with "_" for "."."""
        ca = ca or self.ca
        domains = {name.replace("_", "."): authority for name, authority in federated.items()}
        self.agent.put(response((SERVER, self.svid(ca), ca), federated=domains))

    def write(self, api: str = "", domains: str = "[example.org, other.org]") -> None:
        api = api or f"{{socket: '{self.agent.socket}', patience: 5}}"
        self.deployment.write(f"metrics: 127.0.0.1:{self.metrics}\nworkload_api: {api}")
        settings = self.deployment.directory / "server.yaml"
        text = settings.read_text()
        text = text.replace("tls: {certificate: server.pem, key: server.key}", "tls: {workload_api: true}")
        text = text.replace(
            "trust_domains: {example.org: example.pem, other.org: other.pem}", f"workload_api: {domains}"
        )
        settings.write_text(text)

    def start(self) -> None:
        self.write()
        self.deployment.start()

    def reason(self, stub: AuthServiceStub) -> str:
        """Why a call is refused; empty when it is answered."""
        try:
            stub.GetCaller(WHO, timeout=10)
        except grpc.RpcError as error:
            return refused(error).reason
        return ""

    def failed(self, kind: str) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return f'livekit_auth_reload_failed{{kind="{kind}"}} 1.0' in text

    def serial(self) -> int:
        """The serial number of the certificate that the server shows now."""
        return shown(self.deployment).serial_number


def shown(deployment: Deployment) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", deployment.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with fake_agent(tmp_path) as agent:
        world = World(Deployment(tmp_path), agent)
        yield world
        if world.deployment.process is not None:
            assert world.deployment.stop() == 0


def check(world: World) -> subprocess.CompletedProcess[str]:
    """`livekit-auth-server check`, which loads as `serve` does."""
    command = [sys.executable, "-m", "livekit_auth_server.cli", "check", "--config"]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [*command, world.deployment.directory / "server.yaml"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


def test_certificate_and_named_bundles_come_from_the_agent(world: World) -> None:
    unnamed = Authority.create("unnamed.org CA")
    world.send(other_org=world.other, unnamed_org=unnamed)
    world.start()
    assert world.reason(world.deployment.caller(WEB)) == ""
    assert world.reason(world.deployment.stub(world.other.issue(uris=[OTHER]))) == ""
    assert world.agent.headers[0]["workload.spiffe.io"] == "true"
    # A bundle that nobody asked for signs nothing here: not its own domain, and not another's.
    for name in ("spiffe://unnamed.org/web", WEB):
        with pytest.raises(grpc.RpcError) as raised:
            world.deployment.stub(unnamed.issue(uris=[name])).GetCaller(WHO, timeout=5)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE  # TLS doesn't know the CA


def test_a_federated_ca_signs_no_name_of_another_domain(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    assert world.reason(world.deployment.stub(world.other.issue(uris=[WEB]))) == "CERTIFICATE_INVALID"


def test_a_new_svid_is_shown_and_a_new_bundle_is_believed_within_a_second(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    before = world.serial()
    old, newer = world.deployment.caller(WEB), Authority.create("example.org CA 2")
    assert world.reason(old) == ""
    world.send(newer, other_org=world.other)
    soon(lambda: world.serial() != before, 2.5)
    world.deployment.server_ca = newer
    assert world.reason(world.deployment.stub(newer.issue(uris=[WEB]))) == ""
    soon(lambda: world.reason(old) == "CERTIFICATE_INVALID", 2.5)  # on the connection that was open


def test_a_bundle_that_is_taken_back_is_believed_no_more(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    other = world.deployment.stub(world.other.issue(uris=[OTHER]))
    assert world.reason(other) == ""
    world.send()
    soon(lambda: world.reason(other) == "CERTIFICATE_INVALID")
    assert world.reason(world.deployment.caller(WEB)) == ""
    assert '"domain":"other.org"' in world.deployment.log


def test_an_agent_that_goes_away_leaves_the_last_good_and_is_found_again(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    before = world.serial()
    world.agent.stop()
    soon(lambda: world.failed("certificate") and world.failed("bundles"))
    assert world.reason(world.deployment.caller(WEB)) == ""
    assert world.serial() == before
    failed = [json.loads(line) for line in world.deployment.log.splitlines() if "reload failed" in line]
    assert {line["kind"] for line in failed} == {"certificate", "bundles"}
    assert all(world.agent.socket in line["error"] for line in failed)
    assert [json.loads(line)["event"] for line in world.deployment.log.splitlines()]  # nothing else writes there
    world.agent.start()
    soon(lambda: not world.failed("certificate") and not world.failed("bundles"))
    world.send(other_org=world.other)
    soon(lambda: world.serial() != before)


def test_an_entry_that_is_deleted_leaves_the_last_good_in_force(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    world.agent.put(None)
    soon(lambda: world.failed("certificate"))
    assert "register an entry whose selectors match it" in world.deployment.log
    assert world.reason(world.deployment.caller(WEB)) == ""


@pytest.mark.parametrize("what", ["rsa", "nameless"])
def test_an_svid_that_cant_be_served_is_refused_and_the_last_good_stays(world: World, what: str) -> None:
    world.send(other_org=world.other)
    world.start()
    before = world.serial()
    bad = world.svid(rsa=True) if what == "rsa" else world.svid(dns="")
    world.agent.put(response((SERVER, bad, world.ca), federated={"other.org": world.other}))
    soon(lambda: world.failed("certificate"))
    assert world.serial() == before
    assert not world.failed("bundles")
    assert ("isn't ECDSA" if what == "rsa" else "has no DNS name") in world.deployment.log


def test_a_bundle_that_holds_a_leaf_is_refused_and_the_last_good_stays(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    leaf = world.other.issue(uris=["spiffe://other.org/impostor"])
    world.send(other_org=Authority(leaf.certificate, leaf.key))
    soon(lambda: world.failed("bundles"))
    assert "isn't a CA's" in world.deployment.log
    assert world.reason(world.deployment.stub(world.other.issue(uris=[OTHER]))) == ""


@pytest.mark.parametrize("what", ["garbage", "nothing"])
def test_bad_update_from_the_agent_changes_nothing_and_the_next_good_one_counts(world: World, what: str) -> None:
    world.send(other_org=world.other)
    world.start()
    before = world.serial()
    garbage = workload_pb2.X509SVID(spiffe_id=SERVER, x509_svid=b"MARKER", x509_svid_key=b"MARKER", bundle=b"MARKER")
    world.agent.put(workload_pb2.X509SVIDResponse(svids=[garbage] if what == "garbage" else []))
    soon(lambda: world.failed("certificate") and world.failed("bundles"))
    assert world.serial() == before
    assert world.reason(world.deployment.caller(WEB)) == ""
    world.send(other_org=world.other)
    soon(lambda: world.serial() != before and not world.failed("certificate"))
    assert "MARKER" not in world.deployment.log
    assert "PRIVATE KEY" not in world.deployment.log


def test_of_several_svids_the_first_is_taken_or_the_one_with_the_configured_id(world: World) -> None:
    first, second = world.svid(), world.ca.issue(uris=[f"{SERVER}/second"], dns=["localhost"])
    both = response((SERVER, first, world.ca), (f"{SERVER}/second", second, world.ca))
    world.agent.put(both)
    world.write(domains="[example.org]")
    world.deployment.start()
    assert world.serial() == first.certificate.serial_number
    world.deployment.stop()
    world.write(f"{{socket: '{world.agent.socket}', id: '{SERVER}/second'}}", domains="[example.org]")
    world.deployment.start()
    assert world.serial() == second.certificate.serial_number


def test_without_an_agent_the_start_fails_in_time_and_says_what_to_do(world: World) -> None:
    world.write("{socket: 'unix:///nowhere/agent.sock', patience: 0.5}")
    began = time.monotonic()
    done = check(world)
    assert done.returncode == 2
    assert time.monotonic() - began < 15
    assert "no SVID from the Workload API at unix:///nowhere/agent.sock within 0.5 s" in " ".join(done.stderr.split())
    assert "check that the agent is running" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("api", "sent", "says"),
    [
        ("{{socket: '{socket}', patience: 0.5}}", "nothing", "register an entry whose selectors match it"),
        (
            "{{socket: '{socket}', patience: 0.5, id: spiffe://example.org/x}}",
            "ours",
            "no SVID spiffe://example.org/x for this process",
        ),
        ("{{socket: '{socket}', patience: 2}}", "ours", "gives no bundle for other.org, only for example.org"),
        ("{{socket: 'tcp://127.0.0.1:8081'}}", "ours", "must be unix:///PATH"),
        ("{{}}", "ours", "name its socket, or set SPIFFE_ENDPOINT_SOCKET"),
    ],
)
def test_a_start_that_can_only_fail_says_what_to_do(world: World, api: str, sent: str, says: str) -> None:
    if sent == "ours":
        world.send()
    world.write(api.format(socket=world.agent.socket))
    done = check(world)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_the_start_waits_for_a_bundle_that_comes_after_the_svid(world: World) -> None:
    world.send()
    world.write()
    late = threading.Timer(1.0, lambda: world.send(other_org=world.other))
    late.start()
    world.deployment.start()
    late.join()
    assert world.reason(world.deployment.stub(world.other.issue(uris=[OTHER]))) == ""


def test_check_says_what_the_agent_gives_and_no_key_shows_anywhere(world: World) -> None:
    world.send(other_org=world.other)
    world.start()
    done = check(world)
    assert done.returncode == 0, done.stderr
    assert "example.org: 1 CA certificates" in done.stdout
    assert "PRIVATE KEY" not in done.stdout + world.deployment.log


def client(world: World, agent: FakeAgent, **options: Any) -> sync.AuthClient:
    return sync.AuthClient(f"localhost:{world.deployment.port}", workload_api=agent.socket, **options)


@pytest.fixture
def web(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAgent]:
    """The agent of the node on which the web backend runs."""
    sent = response((WEB, world.ca.issue(uris=[WEB]), world.ca))
    with fake_agent(tmp_path_factory.mktemp("web"), sent) as agent:
        yield agent


def test_a_client_gets_its_certificate_and_the_servers_ca_from_its_agent(world: World, web: FakeAgent) -> None:
    world.send(other_org=world.other)
    world.start()
    with client(world, web) as asking:
        assert asking.get_caller().workload_id == WEB


def test_a_client_shows_its_new_svid_at_its_next_call(world: World, web: FakeAgent) -> None:
    world.send(other_org=world.other)
    world.start()
    newer = "spiffe://example.org/admin"
    with client(world, web) as asking:
        assert asking.get_caller().workload_id == WEB
        web.put(response((newer, world.ca.issue(uris=[newer]), world.ca)))
        soon(lambda: asking.get_caller().workload_id == newer)
        web.stop()
        time.sleep(0.3)
        assert asking.get_caller().workload_id == newer  # the last good
        web.start()
        web.put(response((WEB, world.ca.issue(uris=[WEB]), world.ca)))
        soon(lambda: asking.get_caller().workload_id == WEB)


def test_a_client_of_a_federated_domain_says_which_domain_the_server_is_in(world: World, web: FakeAgent) -> None:
    world.send(other_org=world.other)
    world.start()
    web.put(response((OTHER, world.other.issue(uris=[OTHER]), world.other), federated={"example.org": world.ca}))
    with client(world, web, server_trust_domain="example.org") as asking:
        assert asking.get_caller().workload_id == OTHER
    with client(world, web, timeout=2) as asking, pytest.raises(Unavailable):
        asking.get_caller()  # its own domain's CA didn't sign the server's certificate
    with pytest.raises(ConfigError, match=r"no bundle for the server's trust domain third\.org"):
        client(world, web, server_trust_domain="third.org")


def test_a_client_finds_the_agent_by_the_standard_variable(
    world: World, web: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send(other_org=world.other)
    world.start()
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", web.socket)
    with sync.AuthClient(f"localhost:{world.deployment.port}") as asking:
        assert asking.get_caller().workload_id == WEB
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "livekit_auth.cli",
            "whoami",
            "--json",
            "--address",
            f"localhost:{world.deployment.port}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["workload_id"] == WEB


def test_a_client_without_an_agent_says_so_in_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such socket"):
        sync.AuthClient("localhost:1", workload_api=f"unix://{tmp_path}/agent.sock", timeout=0.3)


def test_the_policy_of_these_tests_lists_the_callers() -> None:
    assert WEB in POLICY
    assert OTHER in POLICY
