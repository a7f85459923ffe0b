"""livekit-auth on real SPIRE: identities by selector, renewals under load, a crash, deletion and denial."""

from __future__ import annotations

import json
import socket
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509

from livekit_auth.v1 import auth_service_pb2 as pb
from spire.conftest import SERVER_ID, WORKLOADS, soon
from spire.spire import CA_TTL, DOMAIN, SVID_TTL
from support.pki import Authority
from support.refusals import refused

if TYPE_CHECKING:
    from spire.conftest import World

CLIENTS = 6
RENEWALS = 4  # of the server's and of the workload's certificate
WHO_AM_I = """
import json
from livekit_auth.sync import AuthClient
with AuthClient({address!r}) as client:
    print(json.dumps(client.get_caller().workload_id))
"""
GIVEN = """
import json, os
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    context = client.fetch_x509_context(timeout=10)
print(json.dumps([sorted(str(svid.spiffe_id) for svid in context.x509_svids),
                  sorted(bundle.trust_domain.name for bundle in context.x509_bundle_set.bundles)]))
"""


def shown(world: World) -> x509.Certificate:
    """The certificate that the server shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", world.deployment.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der)


def authority(certificate: x509.Certificate) -> bytes | None:
    """The key identifier of the CA that signed it."""
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def failing(world: World, kind: str) -> bool:
    address = (world.folder / "server.yaml").read_text().split("metrics: ")[1].split()[0]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return f'livekit_auth_reload_failed{{kind="{kind}"}} 1.0' in answer.read().decode()


def test_each_workload_gets_the_identity_of_its_selector_and_no_other(world: World) -> None:
    for name in ("web", "leaving"):
        done = world.python(name, WHO_AM_I.format(address=world.address))
        assert json.loads(done.stdout or "null") == f"spiffe://{DOMAIN}/{name}", done.stderr
    given = {name: json.loads(world.python(name, GIVEN).stdout) for name in [*WORKLOADS, "livekit-auth"]}
    holders = [name for name, (ids, _) in given.items() if SERVER_ID in ids]
    assert holders == ["livekit-auth"]  # nobody else can pass for the server


def test_a_workload_without_an_entry_gets_nothing(world: World) -> None:
    done = world.python("stranger", WHO_AM_I.format(address=world.address))
    assert done.returncode
    assert "register an entry whose selectors match it" in done.stderr


def test_a_federated_domain_counts_if_the_settings_name_it(world: World) -> None:
    _, domains = json.loads(world.python("livekit-auth", GIVEN).stdout)
    assert domains == [DOMAIN, "other.org", "unnamed.org"]  # the agent gives all three
    assert call(world, world.other, "spiffe://other.org/web") == ""
    assert call(world, world.other, f"spiffe://{DOMAIN}/web") == "CERTIFICATE_INVALID"


def test_a_domain_that_only_the_agent_names_is_not_believed(world: World) -> None:
    authority = Authority.create("unnamed.org CA 2")
    path = world.folder / "unnamed.org.pem"
    path.write_bytes(authority.leaf_pem)
    world.spire.command(f"spire-server bundle set -id spiffe://unnamed.org -path {path}")
    fingerprint = authority.leaf_pem.decode().split("\n")[1]
    soon(lambda: fingerprint in world.python("livekit-auth", PEM_OF_UNNAMED).stdout, 15, "the agent's update")
    assert call(world, authority, "spiffe://unnamed.org/web") == "TLS"


PEM_OF_UNNAMED = """
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import TrustDomain, WorkloadApiClient
with WorkloadApiClient() as client:
    bundle = client.fetch_x509_bundles(timeout=10).get_bundle_for_trust_domain(TrustDomain("unnamed.org"))
print(*(ca.public_bytes(Encoding.PEM).decode() for ca in bundle.x509_authorities))
"""


def call(world: World, ca: Authority, name: str) -> str:
    """Why a caller with a certificate of this CA is refused; "" if it isn't, "TLS" if it can't connect."""
    world.deployment.server_ca = Authority(shown_root(world), ca.key)
    try:
        world.deployment.stub(ca.issue(uris=[name])).GetCaller(pb.GetCallerRequest(), timeout=5)
    except grpc.RpcError as error:
        return "TLS" if error.code() == grpc.StatusCode.UNAVAILABLE else refused(error).reason
    return ""


def shown_root(world: World) -> x509.Certificate:
    """The CA of the bundle that signed the server's certificate."""
    pem = world.spire.command("spire-server bundle show").encode()
    signer = authority(shown(world))
    return next(
        ca
        for ca in x509.load_pem_x509_certificates(pem)
        if ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest == signer
    )


def test_renewals_under_load_and_an_agent_crash_lose_no_call(world: World) -> None:
    servers: dict[int, bytes | None] = {}
    began = time.monotonic()

    def renewed() -> bool:
        certificate = shown(world)
        servers[certificate.serial_number] = authority(certificate)
        return (
            len(servers) > RENEWALS
            and len(web.seen["serials"]) > RENEWALS
            and len(set(servers.values())) > 1
            and time.monotonic() - began > SVID_TTL
        )

    with world.workload("web", CLIENTS) as web:
        soon(lambda: web.seen["calls"], 30, "the first call")
        world.spire.kill_agent()
        soon(lambda: failing(world, "certificate") and failing(world, "bundles"), 10, "the metric of an absent agent")
        time.sleep(2)
        world.spire.start_agent()
        soon(lambda: not failing(world, "certificate") and not failing(world, "bundles"), 15, "finding the agent again")
        soon(renewed, 1.5 * CA_TTL, "the renewals")
        seen = web.seen
    seconds = time.monotonic() - began
    renewals = f"{len(servers) - 1} server and {len(seen['serials']) - 1} workload renewals"
    print(f"\n{seen['calls']} calls in {seconds:.0f} s, {len(seen['failed'])} failed, slowest {seen['slowest']:.2f} s")
    print(f"{renewals}, {len(set(servers.values()))} CAs")
    assert seen["failed"] == []
    assert seen["calls"] > seconds * CLIENTS
    assert seen["identity"] == f"spiffe://{DOMAIN}/web"


def test_a_denied_id_is_refused_at_once_though_its_svid_is_valid(world: World) -> None:
    with world.workload("denied") as asking, world.workload("web") as other:
        soon(lambda: asking.seen["last"] == other.seen["last"] == "ok", 30, "the first call")
        (world.folder / "deny.yaml").write_text(
            f"version: 1\ndeny:\n  - {{id: spiffe://{DOMAIN}/denied, comment: stolen}}\n"
        )
        soon(lambda: asking.seen["last"] == "CERTIFICATE_REVOKED", 3, "the refusal")
        assert other.seen["failed"] == []


def test_a_workload_whose_entry_is_deleted_is_refused_when_its_svid_ends(world: World) -> None:
    with world.workload("leaving") as asking:
        soon(lambda: asking.seen["last"] == "ok", 30, "the first call")
        world.spire.command(f"spire-server entry delete -entryID {world.entries['leaving']}")
        deleted = time.monotonic()
        time.sleep(5)
        assert asking.seen["last"] == "ok"  # until it ends: SPIRE takes nothing back
        soon(lambda: asking.seen["last"] == "CERTIFICATE_EXPIRED", SVID_TTL + 10, "the refusal")
        print(f"\nrefused {time.monotonic() - deleted:.0f} s after its entry was deleted")
        assert set(asking.seen["failed"]) == {"CERTIFICATE_EXPIRED"}


@pytest.fixture(autouse=True)
def _bounded(world: World) -> None:
    assert world.deployment.process is not None
    assert world.deployment.process.poll() is None, world.deployment.log[-2000:]
