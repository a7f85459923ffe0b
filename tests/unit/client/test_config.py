"""Settings from arguments and the environment, and unusable certificate files."""

import pytest

from livekit_auth import AuthClient, ConfigError
from livekit_auth._connection.certificates import CertificateFiles
from livekit_auth._connection.config import Config, Files, FromWorkloadApi
from support.pki import Authority

NAMES = ("ADDRESS", "CA", "CERT", "KEY")


@pytest.fixture(scope="module")
def authority():
    return Authority.create()


@pytest.fixture
def config(authority, tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"LIVEKIT_AUTH_{name}", raising=False)
    cert, key = authority.issue(uris=["spiffe://example.org/web"]).write(tmp_path, "client")
    (tmp_path / "ca.pem").write_bytes(authority.leaf_pem)
    return Config.resolve("localhost:1", ca=tmp_path / "ca.pem", cert=cert, key=key)


@pytest.mark.parametrize("missing", NAMES)
def test_missing_setting_names_its_variable(missing, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(f"LIVEKIT_AUTH_{name}", "localhost:1" if name == "ADDRESS" else "/some/file")
    monkeypatch.setenv(f"LIVEKIT_AUTH_{missing}", "")
    with pytest.raises(ConfigError, match=f"set LIVEKIT_AUTH_{missing} to"):
        AuthClient()


def test_arguments_override_the_environment(config, monkeypatch):
    monkeypatch.setenv("LIVEKIT_AUTH_ADDRESS", "elsewhere:1")
    assert Config.resolve("here:2", ca="a", cert="b", key="c").address == "here:2"


@pytest.mark.parametrize("address", ["host:1", "10.0.0.1:443", "[::1]:50051", "auth.ns.svc.cluster.local:8443"])
def test_host_and_port_are_accepted_as_address(address):
    assert Config.resolve(address, ca="a", cert="b", key="c").address == address


@pytest.mark.parametrize("address", ["host", "https://host:1", "host:", ":1", "::1:50051", "host:port", "a b:1"])
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Config.resolve(address, ca="a", cert="b", key="c")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_timeout_must_be_finite_and_above_zero(timeout):
    with pytest.raises(ConfigError, match="above zero"):
        Config.resolve("host:1", ca="a", cert="b", key="c", timeout=timeout)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_missing_file_is_named(config, name):
    path = getattr(config.identity, name)
    path.unlink()
    with pytest.raises(ConfigError, match=f"can't read {path}: No such file"):
        CertificateFiles(config.identity)


def test_key_of_another_certificate_is_refused(config, authority):
    config.identity.key.write_bytes(authority.issue(uris=["spiffe://example.org/other"]).key_pem)
    with pytest.raises(ConfigError, match="can't be used together"):
        CertificateFiles(config.identity)


def test_encrypted_key_is_refused_without_a_password_prompt(config):
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(config.identity.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    config.identity.key.write_bytes(encrypted)
    with pytest.raises(ConfigError, match="be unencrypted"):
        CertificateFiles(config.identity)


def test_ca_file_without_certificates_is_refused(config):
    config.identity.ca.write_bytes(b"nothing\n")
    with pytest.raises(ConfigError, match="no PEM certificate"):
        CertificateFiles(config.identity)


def test_files_are_checked_at_most_once_per_second(config, authority):
    now = 0.0
    files = CertificateFiles(config.identity, clock=lambda: now)
    renewed = authority.issue(uris=["spiffe://example.org/web"])
    renewed.write(config.identity.cert.parent, "client")
    now = 0.9
    assert not files.renewed()
    now = 1.0
    assert files.renewed()
    assert files.current.cert == renewed.cert_pem
    now = 9.0
    assert not files.renewed()


def while_reading(monkeypatch, change):
    """Makes `change` happen once, after the files were read and before they are checked again."""
    check, changes = CertificateFiles._check, [change]

    def checked(files):
        check(files)
        if changes:
            changes.pop()()

    monkeypatch.setattr(CertificateFiles, "_check", checked)


def test_files_that_change_while_being_read_are_never_mixed(config, authority, monkeypatch):
    renewed = authority.issue(uris=["spiffe://example.org/web"])
    while_reading(monkeypatch, lambda: renewed.write(config.identity.cert.parent, "client"))
    with pytest.raises(ConfigError, match="changed while they were read"):
        CertificateFiles(config.identity)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_renewal_during_a_renewal_is_applied_completely_at_the_next_check(config, authority, monkeypatch, name):
    now = 0.0
    files = CertificateFiles(config.identity, clock=lambda: now)
    before = files.current
    directory = config.identity.cert.parent
    second, third = (authority.issue(uris=["spiffe://example.org/web"]) for _ in range(2))
    second.write(directory, "client")
    path = getattr(config.identity, name)

    def again():
        if name == "ca":
            path.write_bytes(authority.leaf_pem * 2)
        else:
            third.write(directory, "client")

    while_reading(monkeypatch, again)
    now = 1.0
    assert not files.renewed()
    assert files.current == before
    now = 2.0
    assert files.renewed()
    expected = second if name == "ca" else third
    assert (files.current.cert, files.current.key) == (expected.cert_pem, expected.key_pem)


def test_unreadable_files_are_read_again_without_another_change(config, authority, monkeypatch):
    now = 0.0
    files = CertificateFiles(config.identity, clock=lambda: now)
    authority.issue(uris=["spiffe://example.org/web"]).write(config.identity.cert.parent, "client")
    with monkeypatch.context() as broken:
        broken.setattr(CertificateFiles, "_check", lambda _: (_ for _ in ()).throw(ConfigError("busy")))
        now = 1.0
        assert not files.renewed()
    now = 1.9
    assert not files.renewed()
    now = 2.0
    assert files.renewed()


def test_replacing_only_the_ca_is_detected(config):
    now = 0.0
    files = CertificateFiles(config.identity, clock=lambda: now)
    config.identity.ca.write_bytes(Authority.create("the next CA").leaf_pem)
    now = 1.0
    assert files.renewed()
    assert files.current.ca == config.identity.ca.read_bytes()


def test_key_appears_in_no_repr(config):
    certificates = CertificateFiles(config.identity).current
    assert b"PRIVATE KEY" in certificates.key
    assert "PRIVATE KEY" not in repr(certificates)


SOCKET = "unix:///run/spire/agent.sock"


@pytest.fixture
def nothing_set(monkeypatch):
    for name in (*(f"LIVEKIT_AUTH_{name}" for name in NAMES), "SPIFFE_ENDPOINT_SOCKET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_set")
def test_agent_socket_replaces_the_files(monkeypatch):
    by_argument = Config.resolve("host:1", workload_api=SOCKET, server_trust_domain="example.org", timeout=3)
    assert by_argument.identity == FromWorkloadApi(SOCKET, "example.org", 3)
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", SOCKET)
    assert Config.resolve("host:1").identity == FromWorkloadApi(SOCKET, None, 5.0)


@pytest.mark.usefixtures("nothing_set")
def test_named_files_override_the_agents_variable(monkeypatch):
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", SOCKET)
    assert isinstance(Config.resolve("host:1", ca="a", cert="b", key="c").identity, Files)
    monkeypatch.setenv("LIVEKIT_AUTH_CERT", "b")
    with pytest.raises(ConfigError, match="set LIVEKIT_AUTH_CA to"):  # incomplete files aren't ignored
        Config.resolve("host:1")
    assert isinstance(Config.resolve("host:1", workload_api=SOCKET).identity, FromWorkloadApi)


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("given", [{"ca": "a"}, {"cert": "b"}, {"key": "c"}])
def test_agent_and_files_together_are_refused(given):
    with pytest.raises(ConfigError, match="pass either workload_api or the files"):
        Config.resolve("host:1", workload_api=SOCKET, **given)


@pytest.mark.usefixtures("nothing_set")
def test_trust_domain_without_an_agent_is_refused():
    with pytest.raises(ConfigError, match="needs workload_api"):
        Config.resolve("host:1", ca="a", cert="b", key="c", server_trust_domain="example.org")


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    "socket",
    ["tcp://127.0.0.1:1", "/run/agent.sock", "unix:agent.sock", "unix://", "unix:///a?b", "unix:///a b", "unix:///a\n"],
)
def test_workload_api_must_be_a_unix_socket(socket):
    with pytest.raises(ConfigError, match="must be unix:///PATH"):
        Config.resolve("host:1", workload_api=socket)


@pytest.mark.usefixtures("nothing_set")
def test_path_too_long_for_a_socket_is_refused():
    with pytest.raises(ConfigError, match="too long for a socket"):
        Config.resolve("host:1", workload_api="unix:///" + "a" * 107)
