"""CRLs: only what a CA of the bundles signed counts, and it counts although it is overdue."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from livekit_auth_server.adapters.crls import load_crls
from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.core.revocation import by_public_key
from support.pki import NOW, Authority, key_usage, name

if TYPE_CHECKING:
    from pathlib import Path

    from livekit_auth_server.core.revocation import DenyList

CA, OTHER, STRANGER = (Authority.create(title) for title in ("example CA", "other CA", "stranger"))
NAMESAKE = Authority.create("example CA")
BUNDLE = (CA.certificate, OTHER.certificate)
ONE, TWO = CA.issue(uris=["spiffe://example.org/one"]), OTHER.issue(uris=["spiffe://other.org/two"])


def load(folder: Path, content: bytes, authorities: tuple[x509.Certificate, ...] = BUNDLE) -> DenyList:
    (folder / "crls.pem").write_bytes(content)
    return load_crls([folder / "crls.pem"], authorities)


def mistake(folder: Path, content: bytes, authorities: tuple[x509.Certificate, ...] = BUNDLE) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, content, authorities)
    assert caught.value.where == str(folder / "crls.pem")
    return caught.value.message


def test_what_a_crl_revokes_is_denied_by_its_signers_key(tmp_path: Path) -> None:
    got = load(tmp_path, CA.crl(ONE) + OTHER.crl(TWO))
    assert set(got.certificates) == {
        (by_public_key(CA.certificate), ONE.certificate.serial_number),
        (by_public_key(OTHER.certificate), TWO.certificate.serial_number),
    }
    assert [crl.next_update for crl in got.crls] == [int((NOW + dt.timedelta(days=7)).timestamp())] * 2


def test_der_is_read_too(tmp_path: Path) -> None:
    der = x509.load_pem_x509_crl(CA.crl(ONE)).public_bytes(Encoding.DER)
    assert load(tmp_path, der).certificates == load(tmp_path, CA.crl(ONE)).certificates


def test_a_crl_may_revoke_nothing(tmp_path: Path) -> None:
    assert not load(tmp_path, CA.crl()).certificates


def test_an_overdue_crl_still_counts_and_is_known_as_such(tmp_path: Path) -> None:
    got = load(tmp_path, CA.crl(ONE, next_update=NOW - dt.timedelta(days=1)))
    assert got.certificates
    assert len(got.stale(NOW.timestamp())) == 1


def test_a_crl_of_nobody_in_the_bundles_is_refused(tmp_path: Path) -> None:
    assert "no bundle holds such a CA" in mistake(tmp_path, STRANGER.crl(ONE))
    assert "no bundle holds such a CA" in mistake(tmp_path, CA.crl(ONE) + STRANGER.crl())


def test_a_crl_with_a_wrong_signature_is_refused(tmp_path: Path) -> None:
    message = mistake(tmp_path, STRANGER.crl(ONE, issuer="example CA"))
    assert message == "holds a CRL that CN=example CA in the bundles didn't sign"
    der = bytearray(x509.load_pem_x509_crl(CA.crl(ONE)).public_bytes(Encoding.DER))
    der[-1] ^= 1
    assert mistake(tmp_path, bytes(der))


def test_of_two_cas_with_one_name_the_one_that_signed_counts(tmp_path: Path) -> None:
    got = load(tmp_path, CA.crl(ONE), (NAMESAKE.certificate, CA.certificate))
    assert {issuer for issuer, _ in got.certificates} == {by_public_key(CA.certificate)}


def test_a_ca_that_may_not_sign_crls_counts_for_none(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name("no CRLs"))
        .issuer_name(name("no CRLs"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, digital_signature=False), critical=True)
        .sign(key, hashes.SHA256())
    )
    assert "may sign CRLs" in mistake(tmp_path, Authority(certificate, key).crl(ONE), (certificate,))


INDIRECT = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=True,
    only_contains_attribute_certs=False,
)


@pytest.mark.parametrize(
    ("extension", "expected"),
    [
        (x509.DeltaCRLIndicator(1), "is a delta CRL"),
        (INDIRECT, "is an indirect CRL"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), "a critical extension"),
    ],
)
def test_a_crl_that_says_less_than_it_seems_is_refused(
    tmp_path: Path, extension: x509.ExtensionType, expected: str
) -> None:
    assert expected in mistake(tmp_path, CA.crl(ONE, extensions=[(extension, True)]))


def test_a_numbered_crl_is_fine(tmp_path: Path) -> None:
    assert load(tmp_path, CA.crl(ONE, extensions=[(x509.CRLNumber(7), False)])).certificates


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", CA.crl(ONE)[:-40], CA.crl(ONE) + CA.crl()[:-40], CA.leaf_pem, CA.crl(ONE) + CA.leaf_pem],
)
def test_a_file_that_isnt_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    assert mistake(tmp_path, content) == "isn't a PEM or DER file of CRLs"


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_crls([tmp_path / "missing.pem"], BUNDLE)
