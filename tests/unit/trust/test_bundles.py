"""CA bundles from PEM files: nothing in them but CAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.trust.bundles import load_bundles
from support.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path

CA, SECOND, DNS = (Authority.create(name) for name in ("one CA", "second CA", "DNS CA"))


def write(folder: Path, content: bytes, name: str = "ca.pem") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def mistake(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_bundles({"example.org": path}, None)
    assert caught.value.where == str(path)
    return caught.value.message


def test_each_domain_has_its_own_bundle(tmp_path: Path) -> None:
    both = write(tmp_path, CA.leaf_pem + SECOND.leaf_pem, "both.pem")
    bundles = load_bundles({"example.org": both, "other.org": write(tmp_path, SECOND.leaf_pem)}, None)
    assert bundles.domains == {
        "example.org": (CA.certificate, SECOND.certificate),
        "other.org": (SECOND.certificate,),
    }
    assert bundles.dns is None


def test_dns_names_have_a_bundle_where_enabled(tmp_path: Path) -> None:
    assert load_bundles({}, write(tmp_path, DNS.leaf_pem)).dns == (DNS.certificate,)


def test_an_intermediate_may_stand_in_a_bundle(tmp_path: Path) -> None:
    middle = Authority.create("middle", parent=CA)
    bundles = load_bundles({"example.org": write(tmp_path, b"# comment\n" + middle.leaf_pem)}, None)
    assert bundles.domains["example.org"] == (middle.certificate,)


LEAF = CA.issue(uris=["spiffe://example.org/web"])


@pytest.mark.parametrize(
    "content",
    [
        LEAF.leaf_pem,
        CA.leaf_pem + LEAF.leaf_pem,
        CA.issue(uris=["spiffe://example.org/web"], basic_constraints=False).leaf_pem,
        CA.issue(
            basic_constraints=False,
            extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x02\xa3\x00"), False)],
        ).leaf_pem,
    ],
)
def test_a_leaf_in_a_bundle_is_refused_since_it_would_vouch_for_itself(tmp_path: Path, content: bytes) -> None:
    assert "holds a certificate that isn't a CA's (without a subject)" in mistake(write(tmp_path, content))


def test_the_certificate_that_is_no_ca_is_named(tmp_path: Path) -> None:
    named = CA.issue(common_name="web\n", dns=["x"]).leaf_pem
    assert "isn't a CA's (CN=web\\n); a leaf here" in mistake(write(tmp_path, named))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        CA.key_pem,
        CA.leaf_pem[:-60],
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\xff" * 100,
    ],
)
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: bytes) -> None:
    assert mistake(write(tmp_path, content)) == "isn't a PEM file of CA certificates"


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    assert mistake(tmp_path / "missing.pem") == "there is no such file"
    assert mistake(tmp_path) == "can't be read: Is a directory"
