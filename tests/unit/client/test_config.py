"""Settings from arguments and the environment, and certificate files that can't be used."""

import pytest

from livekit_auth import AuthClient, ConfigError
from livekit_auth._certificates import CertificateFiles
from livekit_auth._config import Config
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
def test_a_missing_setting_names_its_variable(missing, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(f"LIVEKIT_AUTH_{name}", "localhost:1" if name == "ADDRESS" else "/some/file")
    monkeypatch.setenv(f"LIVEKIT_AUTH_{missing}", "")
    with pytest.raises(ConfigError, match=f"set LIVEKIT_AUTH_{missing} to"):
        AuthClient()


def test_arguments_win_over_the_environment(config, monkeypatch):
    monkeypatch.setenv("LIVEKIT_AUTH_ADDRESS", "elsewhere:1")
    assert Config.resolve("here:2", ca="a", cert="b", key="c").address == "here:2"


@pytest.mark.parametrize("address", ["host:1", "10.0.0.1:443", "[::1]:50051", "auth.ns.svc.cluster.local:8443"])
def test_host_and_port_are_an_address(address):
    assert Config.resolve(address, ca="a", cert="b", key="c").address == address


@pytest.mark.parametrize("address", ["host", "https://host:1", "host:", ":1", "::1:50051", "host:port", "a b:1"])
def test_anything_else_is_no_address(address):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Config.resolve(address, ca="a", cert="b", key="c")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_finite_and_above_zero(timeout):
    with pytest.raises(ConfigError, match="above zero"):
        Config.resolve("host:1", ca="a", cert="b", key="c", timeout=timeout)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_file_that_is_not_there_is_named(config, name):
    path = getattr(config.identity, name)
    path.unlink()
    with pytest.raises(ConfigError, match=f"can't read {path}: No such file"):
        CertificateFiles(config.identity)


def test_a_key_of_another_certificate_is_refused(config, authority):
    config.identity.key.write_bytes(authority.issue(uris=["spiffe://example.org/other"]).key_pem)
    with pytest.raises(ConfigError, match="can't be used together"):
        CertificateFiles(config.identity)


def test_an_encrypted_key_is_refused_and_no_password_asked_for(config):
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(config.identity.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    config.identity.key.write_bytes(encrypted)
    with pytest.raises(ConfigError, match="not encrypted"):
        CertificateFiles(config.identity)


def test_a_ca_file_without_certificates_is_refused(config):
    config.identity.ca.write_bytes(b"nothing\n")
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        CertificateFiles(config.identity)


def test_the_files_are_looked_at_once_a_second_at_most(config, authority):
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


def test_the_key_shows_in_no_repr(config):
    certificates = CertificateFiles(config.identity).current
    assert b"PRIVATE KEY" in certificates.key
    assert "PRIVATE KEY" not in repr(certificates)
