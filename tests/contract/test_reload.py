"""Files that change under a running server: what is in force, for whom, and how soon."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Self

import grpc
import pytest
from cryptography import x509

from livekit_auth.v1 import auth_service_pb2 as pb
from support import command_line
from support.deployment import KEYS_ALPHA, POLICY, SECRETS, Deployment
from support.pki import SERVER, Authority, Credential
from support.refusals import refusal, refused
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from livekit_auth.v1.permissions_pb2 import AllowEntry

WHO = pb.GetCallerRequest()
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
WEB = "spiffe://example.org/web"
SOON = 1.0  # seconds within which an open connection sees a change


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Deployment]:
    """A server of the test's own, with a deny-list and a CRL that deny nobody."""
    deployment = Deployment(tmp_path)
    deployment.write(f"metrics: 127.0.0.1:{free_port()}")
    (tmp_path / "deny.yaml").write_text("version: 1\ndeny: []\n")
    (tmp_path / "crls.pem").write_bytes(deployment.example_ca.crl())
    settings = tmp_path / "server.yaml"
    extended = "dns_bundle: dns.pem\n  deny_list: deny.yaml\n  crls: [crls.pem]\n"
    settings.write_text(settings.read_text().replace("dns_bundle: dns.pem\n", extended))
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def soon(condition: Callable[[], bool], seconds: float = SOON) -> None:
    """Waits for it. On two busy processors a test gets some more time than the server is promised to take."""
    eventually(condition, seconds + 1, pause=0.01)


def reason(stub: AuthServiceStub) -> str:
    """Why a call is refused; empty when it is answered."""
    try:
        stub.GetCaller(WHO)
    except grpc.RpcError as error:
        return refused(error).reason
    return ""


def permitted(stub: AuthServiceStub) -> Sequence[AllowEntry]:
    return stub.ListPermissions(pb.ListPermissionsRequest()).entries


def revision(stub: AuthServiceStub) -> str:
    return stub.GetCaller(WHO).policy_revision


def metrics(server: Deployment) -> str:
    address = (server.directory / "server.yaml").read_text().split("metrics: ")[1].split()[0]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        return response.read().decode()


def replace(path: Path, content: bytes) -> None:
    """Puts a file in place in one step."""
    other = path.with_name(f".{path.name}.new")
    other.touch(mode=0o600)
    other.write_bytes(content)
    other.replace(path)


# The policy


def test_the_next_call_on_an_open_connection_sees_a_new_policy(server: Deployment) -> None:
    stub = server.caller(WEB)
    assert stub.IssueToken(ASK).token
    (server.directory / "policy.yaml").write_text(POLICY.replace("prefix: consult-", "prefix: board-"))
    soon(lambda: permitted(stub)[0].rooms[0].prefix == "board-")
    assert refusal(lambda: stub.IssueToken(ASK)).reason == "ROOM_NOT_PERMITTED"


@pytest.mark.parametrize("default", ["default_project: alpha", ""])
def test_a_second_project_breaks_only_callers_without_a_default_one_and_is_told_before(
    server: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], default: str
) -> None:
    stub, policy, second = server.caller(WEB), server.directory / "policy.yaml", server.directory / "second.yaml"
    assert stub.IssueToken(ASK).key_id == "APIalpha"
    two = POLICY.replace("projects: [alpha]\n", "projects: [alpha, beta]\n", 1)
    second.write_text(two.replace(f"- id: {WEB}\n", f"- id: {WEB}\n    {default}\n", 1))
    assert command_line.run(monkeypatch, "policy", "diff", policy, second) == 1
    warned = "a request without a project: was alpha, now PROJECT_REQUIRED" in capfd.readouterr().out
    strict = command_line.run(monkeypatch, "policy", "check", second, "--strict")
    assert (warned, strict) == ((False, 0) if default else (True, 1))
    replace(policy, second.read_bytes())
    soon(lambda: '"event":"reloaded"' in server.log)
    if default:
        assert stub.IssueToken(ASK).key_id == "APIalpha"
    else:
        got = refusal(lambda: stub.IssueToken(ASK))
        assert (got.code, got.reason) == ("INVALID_ARGUMENT", "PROJECT_REQUIRED")


def test_a_bad_policy_keeps_the_old_one_and_says_why_until_a_good_one_comes(server: Deployment) -> None:
    stub, path = server.caller(WEB), server.directory / "policy.yaml"
    before = revision(stub)
    path.write_text(POLICY.replace("roles: [guest]", "roles: [gust]", 1))
    soon(lambda: 'livekit_auth_reload_failed{kind="policy"} 1.0' in metrics(server))
    assert 'there is no role \\"gust\\"' in server.log
    assert 'livekit_auth_reload_total{kind="policy",outcome="failed"} 1.0' in metrics(server)
    assert revision(stub) == before
    assert stub.IssueToken(ASK).token
    path.write_text(POLICY + "# mended\n")
    soon(lambda: revision(stub) != before)
    assert 'livekit_auth_reload_failed{kind="policy"} 0.0' in metrics(server)


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py
def test_a_deleted_policy_stays_in_force_until_it_is_back(server: Deployment) -> None:
    stub, path = server.caller(WEB), server.directory / "policy.yaml"
    before = revision(stub)
    path.unlink()
    soon(lambda: "policy.yaml: there is no such file" in server.log)
    assert revision(stub) == before
    path.write_text(POLICY + "# back\n")
    soon(lambda: revision(stub) != before)


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py
def test_a_policy_that_is_written_piecemeal_is_read_when_it_is_whole(server: Deployment) -> None:
    stub, text = server.caller(WEB), POLICY + "# whole\n"
    before = revision(stub)
    with (server.directory / "policy.yaml").open("w") as file:
        for start in range(0, len(text), 200):
            file.write(text[start : start + 200])
            file.flush()
            time.sleep(0.01)
    soon(lambda: revision(stub) != before)
    assert len(permitted(stub)) == 1
    assert '"level":"error"' not in server.log
    assert server.log.count('"event":"reloaded"') == 1


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py
def test_many_rapid_changes_end_in_the_last_state(server: Deployment) -> None:
    stub = server.caller(WEB)
    for number in range(100):
        rooms = f"prefix: room-{number:03}-"
        (server.directory / "policy.yaml").write_text(POLICY.replace("prefix: consult-", rooms))
        time.sleep(0.005)
    soon(lambda: permitted(stub)[0].rooms[0].prefix == "room-099-")


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py
def test_sighup_reads_everything_again(server: Deployment) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    kinds = ("policy", "keys", "bundles", "revocations", "crls", "certificate")
    soon(lambda: all(f'"kind":"{kind}"' in server.log for kind in kinds))
    assert server.caller(WEB).GetCaller(WHO).listed


@pytest.mark.slow  # in the fast suite: unit/files/test_watch.py
def test_a_swap_as_kubernetes_makes_it_counts(tmp_path: Path) -> None:
    server, mount = Deployment(tmp_path), tmp_path / "mount"
    server.write()
    for version, text in (("..1", POLICY), ("..2", POLICY + "# second\n")):
        (mount / version).mkdir(parents=True)
        (mount / version / "policy.yaml").write_text(text)
    (mount / "..data").symlink_to("..1")
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")
    settings = tmp_path / "server.yaml"
    settings.write_text(settings.read_text().replace("policy: policy.yaml", "policy: mount/policy.yaml"))
    server.start()
    try:
        stub = server.caller(WEB)
        before = revision(stub)
        (mount / "..data_tmp").symlink_to("..2")
        os.replace(mount / "..data_tmp", mount / "..data")  # noqa: PTH105 - as the kubelet does it
        soon(lambda: revision(stub) != before)
    finally:
        assert server.stop() == 0


OTHER_FILES = ("alpha.yaml", "deny.yaml", "crls.pem", "example.pem", "server.pem")


@pytest.mark.parametrize("name", ["policy.yaml", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_FILES)])
def test_a_pipe_in_a_files_place_delays_neither_its_successor_nor_the_end(server: Deployment, name: str) -> None:
    """The fixture holds the server to ending on SIGTERM, with the pipe still there."""
    path, kept = server.directory / name, server.directory / f".{name}"
    kind = {"policy.yaml": "policy", "alpha.yaml": "keys", "deny.yaml": "revocations", "crls.pem": "crls"}
    kind |= {"example.pem": "bundles", "server.pem": "certificate"}
    path.rename(kept)
    os.mkfifo(path, 0o600)
    soon(lambda: f"{name}: isn't a plain file" in server.log)
    assert f'livekit_auth_reload_failed{{kind="{kind[name]}"}} 1.0' in metrics(server)
    path.unlink()
    kept.rename(path)
    soon(lambda: f'livekit_auth_reload_failed{{kind="{kind[name]}"}} 0.0' in metrics(server))
    path.unlink()
    os.mkfifo(path, 0o600)
    soon(lambda: server.log.count(f"{name}: isn't a plain file") == 2)


# LiveKit keys


def test_a_key_is_added_promoted_and_revoked_without_a_failed_call(server: Deployment) -> None:
    web, admin = server.caller(WEB), server.caller("spiffe://example.org/admin")
    old = web.IssueToken(ASK)
    assert old.key_id == "APIalpha"
    new = f"  - {{id: APInew, secret: {SECRETS['APIgone']}}}\n"
    with Load(server) as load:
        server.private("alpha.yaml", KEYS_ALPHA + new)  # it may verify
        soon(lambda: server.log.count('"kind":"keys"') == 1)
        assert web.IssueToken(ASK).key_id == "APIalpha"
        promoted = KEYS_ALPHA.replace(f"{SECRETS['APIalpha']}}}", f"{SECRETS['APIalpha']}, state: verify-only}}") + new
        server.private("alpha.yaml", promoted)
        soon(lambda: web.IssueToken(ASK).key_id == "APInew")
        assert admin.VerifyToken(pb.VerifyTokenRequest(token=old.token)).key_id == "APIalpha"
        server.private("alpha.yaml", promoted.replace("state: verify-only", "state: revoked"))
        gone = pb.VerifyTokenRequest(token=old.token)
        soon(lambda: server.log.count('"kind":"keys"') == 3)
        assert refusal(lambda: admin.VerifyToken(gone)).reason == "KEY_UNKNOWN"
    assert load.failed == []


@pytest.mark.slow  # in the fast suite: unit/files/test_watch.py
def test_a_folder_of_keys_is_read_again_when_it_is_swapped(tmp_path: Path) -> None:
    server, mount = Deployment(tmp_path), tmp_path / "keys"
    server.write()
    for version, key in (("..1", "APIalpha"), ("..2", "APIolder")):
        (mount / version).mkdir(parents=True)
        server.private(f"keys/{version}/{key}", SECRETS[key])
    (mount / "..data").symlink_to("..1")
    (mount / "APIalpha").symlink_to("..data/APIalpha")
    settings = tmp_path / "server.yaml"
    settings.write_text(settings.read_text().replace("{file: alpha.yaml}", "{directory: keys}"))
    server.start()
    try:
        stub = server.caller(WEB)
        assert stub.IssueToken(ASK).key_id == "APIalpha"
        (mount / "..data_tmp").symlink_to("..2")
        os.replace(mount / "..data_tmp", mount / "..data")  # noqa: PTH105 - as the kubelet does it
        (mount / "APIolder").symlink_to("..data/APIolder")
        (mount / "APIalpha").unlink()
        soon(lambda: stub.IssueToken(ASK).key_id == "APIolder")
    finally:
        assert server.stop() == 0


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py and unit/keys/test_keys_file.py
def test_keys_that_others_can_read_now_are_reported_and_the_old_ones_kept(server: Deployment) -> None:
    (server.directory / "alpha.yaml").chmod(0o644)
    soon(lambda: "alpha.yaml: can be read by others" in server.log)
    assert server.caller(WEB).IssueToken(ASK).token
    (server.directory / "alpha.yaml").chmod(0o600)
    soon(lambda: 'livekit_auth_reload_failed{kind="keys"} 0.0' in metrics(server))
    assert not any(secret in server.log for secret in SECRETS.values())


# The server's certificate


class Load:
    """Calls without a pause on one open connection."""

    def __init__(self, server: Deployment) -> None:
        self.stub = server.caller(WEB)
        self.calls = 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.stub.IssueToken(ASK, timeout=5)
            except grpc.RpcError as error:
                self.failed.append(str(refused(error)))
            self.calls += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def shown_serial(server: Deployment, credential: Credential) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=server.server_ca.leaf_pem.decode())
    certificate, key = credential.write(server.directory, "probe")
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(("localhost", server.port), 5)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as connection:
        der = connection.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der).serial_number


def test_a_renewed_certificate_is_shown_to_new_connections_and_no_call_is_lost(server: Deployment) -> None:
    credential = server.example_ca.issue(uris=[WEB])
    renewed = server.server_ca.issue(dns=["localhost"], usages=[SERVER])
    assert shown_serial(server, credential) != renewed.certificate.serial_number
    with Load(server) as load:
        renewed.write(server.directory, "server")
        soon(lambda: shown_serial(server, credential) == renewed.certificate.serial_number)
        for _ in range(3):  # handed out once, and used from then on
            assert shown_serial(server, credential) == renewed.certificate.serial_number
        before = load.calls
        soon(lambda: load.calls > before + 5)
    assert load.failed == []
    assert server.stub(credential).GetCaller(WHO).listed


def test_an_expired_certificate_keeps_the_old_one(server: Deployment) -> None:
    credential, old = server.example_ca.issue(uris=[WEB]), server.directory / "server.pem"
    serial = x509.load_pem_x509_certificate(old.read_bytes()).serial_number
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    expired = server.server_ca.issue(dns=["localhost"], usages=[SERVER], not_after=ended)
    expired.write(server.directory, "server")
    soon(lambda: "no client takes it; renew it" in server.log)
    assert shown_serial(server, credential) == serial


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py and unit/transport/test_tls.py
def test_a_certificate_without_its_key_keeps_the_old_pair(server: Deployment) -> None:
    credential = server.example_ca.issue(uris=[WEB])
    before = shown_serial(server, credential)
    renewed = server.server_ca.issue(dns=["localhost"], usages=[SERVER])
    (server.directory / "server.pem").write_bytes(renewed.cert_pem)
    soon(lambda: "the key doesn't belong to the certificate" in server.log)
    assert shown_serial(server, credential) == before
    (server.directory / "server.key").write_bytes(renewed.key_pem)
    soon(lambda: shown_serial(server, credential) == renewed.certificate.serial_number)


# CAs


def test_a_ca_that_leaves_its_bundle_takes_its_callers_along(server: Deployment) -> None:
    stub, credential = server.caller(WEB), server.example_ca.issue(uris=[WEB])
    successor = Authority.create("example.org CA 2")
    assert reason(stub) == ""
    replace(server.directory / "example.pem", successor.leaf_pem)
    soon(lambda: reason(stub) == "CERTIFICATE_INVALID")
    fresh = server.stub(credential)
    assert refusal(lambda: fresh.GetCaller(WHO, timeout=3)).code == "UNAVAILABLE"  # not even the handshake
    assert server.stub(successor.issue(uris=[WEB])).GetCaller(WHO).listed
    assert server.stub(server.other_ca.issue(uris=["spiffe://other.org/web"])).GetCaller(WHO).listed


@pytest.mark.slow  # in the fast suite: unit/trust/test_bundles.py
def test_a_ca_that_moves_to_another_domains_bundle_signs_for_that_one_alone(server: Deployment) -> None:
    """The handshake takes it as before; the open connection is refused all the same."""
    stub = server.caller(WEB)
    assert reason(stub) == ""
    replace(server.directory / "other.pem", server.example_ca.leaf_pem)
    replace(server.directory / "example.pem", server.other_ca.leaf_pem)
    soon(lambda: reason(stub) == "CERTIFICATE_INVALID")
    assert server.stub(server.example_ca.issue(uris=["spiffe://other.org/web"])).GetCaller(WHO).listed


@pytest.mark.slow  # in the fast suite: unit/trust/test_bundles.py
def test_a_ca_is_added_beside_the_old_one(server: Deployment) -> None:
    stub, successor = server.caller(WEB), Authority.create("example.org CA 2")
    newcomer = successor.issue(uris=[WEB])
    with Load(server) as load:
        replace(server.directory / "example.pem", server.example_ca.leaf_pem + successor.leaf_pem)
        soon(lambda: server.log.count('"kind":"bundles"') == 1)
        assert server.stub(newcomer).GetCaller(WHO).listed
    assert load.failed == []
    assert reason(stub) == ""


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py and unit/trust/test_bundles.py
def test_a_bad_bundle_keeps_the_old_one(server: Deployment) -> None:
    stub = server.caller(WEB)
    (server.directory / "example.pem").write_bytes(server.example_ca.issue(uris=[WEB]).leaf_pem)
    soon(lambda: "a leaf here would vouch for itself" in server.log)
    assert reason(stub) == ""


# Who isn't believed any more


def test_a_certificate_that_expires_is_refused_on_its_open_connection(server: Deployment) -> None:
    end = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=2)
    stub = server.stub(server.example_ca.issue(uris=[WEB], not_after=end))
    assert reason(stub) == ""
    time.sleep(max(0.0, end.timestamp() - time.time()))
    soon(lambda: reason(stub) == "CERTIFICATE_EXPIRED")


def test_a_workload_on_the_deny_list_is_refused_on_its_open_connection(server: Deployment) -> None:
    stub, other = server.caller(WEB), server.caller("spiffe://example.org/admin")
    assert reason(stub) == ""
    (server.directory / "deny.yaml").write_text(f"version: 1\ndeny:\n  - {{id: {WEB}, comment: taken over}}\n")
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    got = refusal(lambda: stub.IssueToken(ASK))
    assert (got.code, got.reason) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")
    assert reason(server.caller(WEB)) == "CERTIFICATE_REVOKED"
    assert reason(other) == ""
    (server.directory / "deny.yaml").write_text("version: 1\ndeny: []\n")
    soon(lambda: reason(stub) == "")


def test_a_serial_on_the_deny_list_stops_that_certificate_alone(server: Deployment) -> None:
    lost = server.example_ca.issue(uris=[WEB])
    stub = server.stub(lost)
    assert reason(stub) == ""
    entry = f'{{serial: "{lost.certificate.serial_number:x}", issuer: "CN=example.org CA"}}'
    (server.directory / "deny.yaml").write_text(f"version: 1\ndeny:\n  - {entry}\n")
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    assert reason(server.caller(WEB)) == ""


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py and unit/trust/test_deny_list.py
def test_a_bad_deny_list_keeps_the_old_one(server: Deployment) -> None:
    stub, path = server.caller(WEB), server.directory / "deny.yaml"
    path.write_text(f"version: 1\ndeny:\n  - {{id: {WEB}}}\n")
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    path.write_text("")
    soon(lambda: "deny.yaml: is empty" in server.log)
    assert reason(stub) == "CERTIFICATE_REVOKED"


def test_a_crl_stops_what_it_revokes_and_one_of_a_stranger_changes_nothing(server: Deployment) -> None:
    lost = server.example_ca.issue(uris=[WEB])
    stub, path = server.stub(lost), server.directory / "crls.pem"
    assert reason(stub) == ""
    forged = Authority.create("example.org CA").crl(lost)
    replace(path, forged)
    soon(lambda: "in the bundles didn't sign" in server.log)
    assert reason(stub) == ""
    replace(path, server.example_ca.crl(lost, next_update=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)))
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    assert reason(server.caller(WEB)) == ""
    assert "livekit_auth_crls_stale 1.0" in metrics(server)
    assert "a CRL's next issue is overdue" in server.log


def test_a_crl_is_checked_again_when_the_bundles_change(server: Deployment) -> None:
    """Until the CRL of a CA that has left is taken out, what was loaded stays in force, and is reported."""
    stub = server.caller(WEB)
    replace(server.directory / "example.pem", Authority.create("example.org CA 2").leaf_pem)
    soon(lambda: reason(stub) == "CERTIFICATE_INVALID")
    soon(lambda: 'livekit_auth_reload_failed{kind="crls"} 1.0' in metrics(server))
    assert "no bundle holds such a CA" in server.log


@pytest.mark.slow  # in the fast suite: unit/service/test_state.py and unit/trust/test_crls.py
def test_a_crl_that_cant_be_used_doesnt_keep_a_deny_list_from_taking_effect(server: Deployment) -> None:
    lost = server.example_ca.issue(uris=["spiffe://example.org/admin"])
    stub, revoked = server.caller(WEB), server.stub(lost)
    assert (reason(stub), reason(revoked)) == ("", "")
    replace(server.directory / "crls.pem", server.example_ca.crl(lost))
    soon(lambda: reason(revoked) == "CERTIFICATE_REVOKED")
    replace(server.directory / "crls.pem", Authority.create("stranger").crl())
    soon(lambda: 'livekit_auth_reload_failed{kind="crls"} 1.0' in metrics(server))
    (server.directory / "deny.yaml").write_text(f"version: 1\ndeny:\n  - {{id: {WEB}}}\n")
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    assert 'livekit_auth_reload_failed{kind="revocations"} 0.0' in metrics(server)
    assert reason(revoked) == "CERTIFICATE_REVOKED"


@pytest.mark.slow  # in the fast suite: unit/service/test_state.py and unit/trust/test_crls.py
def test_a_deny_list_that_cant_be_used_doesnt_keep_a_crl_from_taking_effect(server: Deployment) -> None:
    lost = server.example_ca.issue(uris=["spiffe://example.org/admin"])
    stub, revoked = server.caller(WEB), server.stub(lost)
    (server.directory / "deny.yaml").write_text(f"version: 1\ndeny:\n  - {{id: {WEB}}}\n")
    soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    (server.directory / "deny.yaml").write_text("version: 1\ndeny: [{id: nobody}]\n")
    soon(lambda: 'livekit_auth_reload_failed{kind="revocations"} 1.0' in metrics(server))
    replace(server.directory / "crls.pem", server.example_ca.crl(lost))
    soon(lambda: reason(revoked) == "CERTIFICATE_REVOKED")
    assert reason(stub) == "CERTIFICATE_REVOKED"


@pytest.mark.slow  # in the fast suite: unit/trust/test_deny_list.py
def test_a_deny_entry_that_matches_nothing_is_told_in_the_log(server: Deployment) -> None:
    entries = '  - {id: spiffe://example.org/wed}\n  - {serial: "1", issuer: CN=nobody}\n'
    (server.directory / "deny.yaml").write_text(f"version: 1\ndeny:\n{entries}")
    soon(lambda: "deny.yaml:4: deny.1.issuer: matches no CA of the bundles" in server.log)
    assert "deny.yaml:3: deny.0.id: matches no caller of the policy" in server.log


@pytest.mark.slow  # in the fast suite: unit/trust/test_crls.py
def test_crls_are_added_to_their_folder_without_a_restart(tmp_path: Path) -> None:
    server, folder = Deployment(tmp_path), tmp_path / "crls"
    server.write()
    folder.mkdir()
    (folder / "example.pem").write_bytes(server.example_ca.crl())
    settings = tmp_path / "server.yaml"
    settings.write_text(settings.read_text().replace("dns.pem\n", "dns.pem\n  crls: [crls]\n", 1))
    server.start()
    try:
        lost = server.other_ca.issue(uris=["spiffe://other.org/web"])
        stub = server.stub(lost)
        assert reason(stub) == ""
        replace(folder / "other.pem", server.other_ca.crl(lost))
        soon(lambda: reason(stub) == "CERTIFICATE_REVOKED")
    finally:
        assert server.stop() == 0
