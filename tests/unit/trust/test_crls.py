"""CRLs: only what a CA of the bundles signed counts, and it counts although it is overdue."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from livekit_auth_server.core.certificate_names import by_public_key
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.trust import crls
from livekit_auth_server.trust.crls import load_crls, reload_crls
from support.pki import NOW, Authority, Credential, key_usage, name

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
    assert got.revoked == {
        (by_public_key(CA.certificate), ONE.certificate.serial_number),
        (by_public_key(OTHER.certificate), TWO.certificate.serial_number),
    }
    assert [crl.next_update for crl in got.crls] == [int((NOW + dt.timedelta(days=7)).timestamp())] * 2


def test_der_is_read_too(tmp_path: Path) -> None:
    der = x509.load_pem_x509_crl(CA.crl(ONE)).public_bytes(Encoding.DER)
    assert load(tmp_path, der).revoked == load(tmp_path, CA.crl(ONE)).revoked


def test_a_crl_may_revoke_nothing(tmp_path: Path) -> None:
    assert not load(tmp_path, CA.crl()).revoked


def test_an_overdue_crl_still_counts_and_is_known_as_such(tmp_path: Path) -> None:
    got = load(tmp_path, CA.crl(ONE, next_update=NOW - dt.timedelta(days=1)))
    assert got.revoked
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
    assert {issuer for issuer, _ in got.revoked} == {by_public_key(CA.certificate)}


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
    assert load(tmp_path, CA.crl(ONE, extensions=[(x509.CRLNumber(7), False)])).revoked


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", CA.crl(ONE)[:-40], CA.crl(ONE) + CA.crl()[:-40], CA.leaf_pem, CA.crl(ONE) + CA.leaf_pem],
)
def test_a_file_that_isnt_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    assert mistake(tmp_path, content) == "isn't a PEM or DER file of CRLs"


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_crls([tmp_path / "missing.pem"], BUNDLE)


# A folder of CRLs, and what stays in force


def revoked(*credentials: tuple[Authority, Credential]) -> frozenset[tuple[str, int]]:
    return frozenset(
        (by_public_key(ca.certificate), credential.certificate.serial_number) for ca, credential in credentials
    )


def test_a_folder_is_every_crl_in_it(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(CA.crl(ONE))
    (tmp_path / ".two.pem.new").write_bytes(b"half")
    assert load_crls([tmp_path], BUNDLE).revoked == revoked((CA, ONE))
    (tmp_path / "two.der").write_bytes(x509.load_pem_x509_crl(OTHER.crl(TWO)).public_bytes(Encoding.DER))
    assert load_crls([tmp_path], BUNDLE).revoked == revoked((CA, ONE), (OTHER, TWO))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """As of a mount that is missing: nothing that was revoked may come back by it."""
    with pytest.raises(ConfigError, match="holds no CRLs"):
        load_crls([tmp_path], BUNDLE)


def test_a_file_that_cant_be_used_keeps_its_last_crl_and_holds_up_no_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.write_bytes(CA.crl(ONE))
    two.write_bytes(OTHER.crl())
    before = load_crls([tmp_path], BUNDLE)
    two.write_bytes(OTHER.crl(TWO))
    for bad in (b"", STRANGER.crl(), CA.leaf_pem):
        one.write_bytes(bad)
        got, problems = reload_crls([tmp_path], BUNDLE, before)
        assert got.revoked == revoked((CA, ONE), (OTHER, TWO))
        assert [problem.where for problem in problems] == [str(one)]
    one.unlink()
    got, problems = reload_crls([one, two], BUNDLE, before)  # named by itself, it must be there
    assert (got.revoked, len(problems)) == (revoked((CA, ONE), (OTHER, TWO)), 1)


def test_a_folder_that_is_away_or_empty_keeps_all_that_it_held(tmp_path: Path) -> None:
    folder = tmp_path / "crls"
    folder.mkdir()
    (folder / "one.pem").write_bytes(CA.crl(ONE))
    before = load_crls([folder], BUNDLE)
    (folder / "one.pem").unlink()
    for _ in range(2):
        got, problems = reload_crls([folder], BUNDLE, before)
        assert (got, len(problems)) == (before, 1)
        if folder.exists():
            folder.rmdir()


def test_a_file_that_is_taken_out_of_its_folder_counts_no_more(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(CA.crl(ONE))
    (tmp_path / "two.pem").write_bytes(OTHER.crl(TWO))
    before = load_crls([tmp_path], BUNDLE)
    (tmp_path / "one.pem").unlink()
    assert reload_crls([tmp_path], BUNDLE, before)[0].revoked == revoked((OTHER, TWO))


# What a real CA's CRL can lack


TIMES = (0x17, 0x18)  # UTCTime, GeneralizedTime


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 0x80 else bytes([0x80 + len(octets)]) + octets) + content


def members(sequence: bytes) -> list[bytes]:
    """The members of a DER sequence."""
    found: list[bytes] = []
    rest = der_content(sequence)
    while rest:
        size = len(rest) - len(der_rest(rest))
        found, rest = [*found, rest[:size]], rest[size:]
    return found


def der_content(one: bytes) -> bytes:
    long = one[1] - 0x80 if one[1] >= 0x80 else 0
    size = int.from_bytes(one[2 : 2 + long], "big") if long else one[1]
    return one[2 + long : 2 + long + size]


def der_rest(one: bytes) -> bytes:
    long = one[1] - 0x80 if one[1] >= 0x80 else 0
    return one[2 + long + len(der_content(one)) :]


def endless_crl() -> bytes:
    """A CRL without a time of its next issue, in DER: cryptography's builder makes none."""
    tbs = members(x509.load_pem_x509_crl(CA.crl(ONE)).tbs_certlist_bytes)
    del tbs[[index for index, member in enumerate(tbs) if member[0] in TIMES][1]]
    whole = der(0x30, b"".join(tbs))
    assert isinstance(CA.key, ec.EllipticCurvePrivateKey)
    signature = CA.key.sign(whole, ec.ECDSA(hashes.SHA256()))
    return der(0x30, whole + tbs[1] + der(0x03, b"\0" + signature))


def test_a_crl_without_a_next_issue_counts_and_is_never_overdue(tmp_path: Path) -> None:
    got = load(tmp_path, endless_crl())
    assert got.revoked == revoked((CA, ONE))
    assert [crl.next_update for crl in got.crls] == [None]
    assert got.stale(NOW.timestamp() + 10**9) == []


def test_a_signature_counts_with_sha_2_alone() -> None:
    """Also where cryptography, which refuses SHA-1 by itself today, would take it."""

    def counts(algorithm: hashes.HashAlgorithm | None) -> bool:
        crl: Any = SimpleNamespace(signature_hash_algorithm=algorithm, is_signature_valid=lambda _: True)
        return crls._signed(crl, CA.certificate)

    assert [counts(one) for one in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())] == [True] * 3
    assert [counts(one) for one in (hashes.SHA1(), hashes.MD5(), None)] == [False] * 3  # noqa: S303


def test_beginnings_without_an_end_are_refused_at_once(tmp_path: Path) -> None:
    """The time to look for an end once grew with the square of the file."""
    assert mistake(tmp_path, b"-----BEGIN X509 CRL-----\n" * 40_000)
