"""A certificate and key that can't serve TLS 1.3 to gRPC's clients are refused, with what to do."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from livekit_auth_server.transport import tls
from livekit_auth_server.transport.tls import ServerIdentity, pin_tls13
from support.pki import SERVER, Authority, Credential

CA = Authority.create()
GOOD = CA.issue(dns=["localhost"], usages=[SERVER])
PIN = "GRPC_SSL_CIPHER_SUITES"


def mistake(certificate: bytes, key: bytes) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the text
        ServerIdentity(certificate, key).check()
    assert type(caught.value) is ValueError
    assert "BEGIN" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "credential",
    [
        GOOD,
        CA.issue(other_names=[x509.IPAddress(ip_address("::1"))], usages=[SERVER]),
        CA.issue(dns=["a.example.org", "b.example.org"], uris=["spiffe://example.org/auth"]),
        CA.issue(dns=["localhost"], key=ec.generate_private_key(ec.SECP384R1())),
        Authority.create("middle", parent=CA).issue(dns=["localhost"]),
    ],
)
def test_an_ecdsa_certificate_with_a_name_to_connect_to_serves(credential: Credential) -> None:
    ServerIdentity(credential.cert_pem, credential.key_pem).check()


def traditional(parameters: bytes = b"") -> bytes:
    return parameters + GOOD.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize("key", [traditional(), traditional(PARAMETERS)])
def test_a_key_as_openssl_ecparam_writes_it_is_fine(key: bytes) -> None:
    ServerIdentity(GOOD.cert_pem, key).check()


def test_the_key_shows_in_no_repr() -> None:
    identity = ServerIdentity(GOOD.cert_pem, GOOD.key_pem)
    for shown in (repr(identity), str(identity), f"{identity}", f"{[identity]}"):
        assert "BEGIN" not in shown
    assert repr(identity) == "ServerIdentity(***)"


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()], ids=["RSA", "Ed25519"]
)
def test_a_key_that_isnt_ecdsa_is_refused(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """TLS 1.2 is shut out by offering it RSA ciphers only, which takes a key that isn't RSA."""
    credential = CA.issue(dns=["localhost"], key=key)
    assert mistake(credential.cert_pem, credential.key_pem).startswith("the key isn't ECDSA")
    assert mistake(GOOD.cert_pem, credential.key_pem).startswith("the key isn't ECDSA")


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1()], ids=lambda curve: curve.name)
def test_a_curve_that_no_grpc_client_takes_is_refused(curve: ec.EllipticCurve) -> None:
    credential = CA.issue(dns=["localhost"], key=ec.generate_private_key(curve))
    text = mistake(credential.cert_pem, credential.key_pem)
    assert text == f"the key is on the curve {curve.name}, which no gRPC client takes; issue a P-256 key"


def test_a_key_of_another_certificate_is_refused() -> None:
    other = CA.issue(dns=["localhost"])
    assert mistake(GOOD.cert_pem, other.key_pem) == "the key doesn't belong to the certificate"


def test_the_servers_own_certificate_stands_first() -> None:
    assert mistake(CA.leaf_pem + GOOD.leaf_pem, GOOD.key_pem) == "the key doesn't belong to the certificate"


@pytest.mark.parametrize(
    "credential",
    [
        CA.issue(uris=["spiffe://example.org/auth"]),
        CA.issue(common_name="localhost"),
        CA.issue(other_names=[x509.RFC822Name("a@example.org")]),
    ],
)
def test_a_certificate_without_a_name_to_connect_to_is_refused(credential: Credential) -> None:
    assert mistake(credential.cert_pem, credential.key_pem).startswith("the certificate has no DNS name")


def encrypted(form: PrivateFormat) -> bytes:
    return GOOD.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"garbage",
        b"\xff" * 64,
        GOOD.key_pem[:-60],
        GOOD.cert_pem,
        encrypted(PrivateFormat.PKCS8),
        encrypted(PrivateFormat.TraditionalOpenSSL),
        GOOD.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_a_key_that_isnt_unencrypted_pem_is_refused(key: bytes) -> None:
    assert mistake(GOOD.cert_pem, key) == "the key isn't an unencrypted PEM private key"


def test_a_key_that_cant_sign_is_refused() -> None:
    key = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert mistake(GOOD.cert_pem, key).startswith("the key isn't ECDSA")


BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
X400 = (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x02\xa3\x00"), False)


@pytest.mark.parametrize(
    "certificate",
    [
        b"",
        b"garbage",
        b"\xff" * 64,
        BROKEN,
        GOOD.leaf_pem + BROKEN,
        GOOD.key_pem,
        GOOD.certificate.public_bytes(Encoding.DER),
        CA.issue(common_name="x", extensions=[X400], key=GOOD.key).leaf_pem,
    ],
)
def test_a_certificate_that_isnt_pem_is_refused(certificate: bytes) -> None:
    assert mistake(certificate, GOOD.key_pem).startswith(
        "the certificate isn't PEM: put the server's certificate first"
    )


# The pin


def test_the_pin_offers_tls_1_2_what_only_an_rsa_key_could_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIN, raising=False)
    monkeypatch.delitem(sys.modules, "grpc", raising=False)
    pin_tls13()
    assert os.environ[PIN] == "ECDHE-RSA-AES256-GCM-SHA384"
    pin_tls13()


def test_the_pin_wins_over_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIN, "ECDHE-ECDSA-AES256-GCM-SHA384")
    monkeypatch.delitem(sys.modules, "grpc", raising=False)
    pin_tls13()
    assert os.environ[PIN] == "ECDHE-RSA-AES256-GCM-SHA384"


@pytest.mark.parametrize("before", [None, "", "ECDHE-ECDSA-AES256-GCM-SHA384"])
def test_the_pin_after_grpc_is_too_late(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv(PIN, raising=False) if before is None else monkeypatch.setenv(PIN, before)
    monkeypatch.setitem(sys.modules, "grpc", sys)
    with pytest.raises(RuntimeError, match="must run before grpc is imported"):
        pin_tls13()


def test_credentials_need_the_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIN, raising=False)
    with pytest.raises(RuntimeError, match="pin_tls13 must run"):
        tls.Endpoint(ServerIdentity(GOOD.cert_pem, GOOD.key_pem), [CA.certificate])


def test_credentials_are_checked_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIN, "ECDHE-RSA-AES256-GCM-SHA384")
    with pytest.raises(ValueError, match="isn't an unencrypted PEM"):
        tls.Endpoint(ServerIdentity(GOOD.cert_pem, b"x"), [CA.certificate])
    assert tls.Endpoint(ServerIdentity(GOOD.cert_pem, GOOD.key_pem), [CA.certificate]).credentials()
