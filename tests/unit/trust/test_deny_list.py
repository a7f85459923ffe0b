"""The deny-list file: what it denies, and every entry that could never match is an error with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from livekit_auth_server.core.certificate_names import by_key_id, by_name
from livekit_auth_server.core.revocation import NEVER, DenyList
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.trust.deny_list import load_deny_file
from support.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path

CALLERS = {"spiffe://example.org/web", "dns:legacy.example.org"}
CA = Authority.create("example.org CA")


def load(folder: Path, *entries: str, text: str | None = None) -> DenyList:
    path = folder / "deny.yaml"
    path.write_text(
        text if text is not None else "version: 1\ndeny:\n" + "".join(f"  - {entry}\n" for entry in entries)
    )
    return load_deny_file(path, CALLERS, [CA.certificate])


def mistake(folder: Path, *entries: str, text: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, *entries, text=text)
    return caught.value


def test_workloads_and_certificates_are_listed(tmp_path: Path) -> None:
    got = load(
        tmp_path,
        "{id: spiffe://example.org/web, comment: taken over}",
        "{id: 'dns:legacy.example.org', expires: 2027-01-01T00:00:00Z}",
        '{serial: "4F:3a:09", issuer: "CN=example.org CA"}',
        f'{{serial: "0a", issuer: "{"b7" * 20}"}}',
    )
    assert got.workloads == {"spiffe://example.org/web": NEVER, "dns:legacy.example.org": 1798761600}
    assert got.certificates == {
        (by_name(CA.certificate.subject), 0x4F3A09): NEVER,
        (by_key_id(b"\xb7" * 20), 10): NEVER,
    }


def test_an_empty_list_has_to_be_written(tmp_path: Path) -> None:
    assert load(tmp_path, text="version: 1\ndeny: []\n") == DenyList()
    assert mistake(tmp_path, text="").message == "is empty"
    assert "deny: is required" in str(mistake(tmp_path, text="version: 1\n"))


@pytest.mark.parametrize(
    "written",
    [
        "CN=web CA,O=Example\\, Inc.,C=CH",
        "CN=WEB ca,O=example\\, inc.,C=ch",
        "C = CH, O = Example\\, Inc., CN = web CA",
        "CN=web CA, O=Example\\, Inc., C=CH",
    ],
)
def test_an_issuer_is_named_as_tools_write_it(tmp_path: Path, written: str) -> None:
    subject = x509.Name.from_rfc4514_string("CN=web CA,O=Example\\, Inc.,C=CH")
    got = load(tmp_path, f"{{serial: '1', issuer: '{written}'}}")
    assert got.certificates == {(by_name(subject), 1): NEVER}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{id: spiffe://example.org/}", "deny.0.id: not a SPIFFE id"),
        ("{id: web}", "deny.0.id: not a SPIFFE id"),
        ("{serial: 4711, issuer: CN=x}", "deny.0.serial: should be text; put it in quotes"),
        ("{serial: 1e5, issuer: CN=x}", "deny.0.serial"),
        ('{serial: "xyz", issuer: CN=x}', "serial number in hexadecimal"),
        ('{serial: "", issuer: CN=x}', "serial number in hexadecimal"),
        (f'{{serial: "{"1" * 41}", issuer: CN=x}}', "serial number in hexadecimal"),
        ('{serial: "1"}', "needs either id, or serial and issuer"),
        ("{issuer: CN=x}", "needs either id, or serial and issuer"),
        ("{comment: nobody}", "needs either id, or serial and issuer"),
        ('{id: spiffe://example.org/web, serial: "1", issuer: CN=x}', "needs either id, or serial and issuer"),
        ('{serial: "1", issuer: "example.org CA"}', "deny.0.issuer: should be the issuer's name"),
        ('{serial: "1", issuer: "cn=x"}', "deny.0.issuer: should be the issuer's name"),
        ('{serial: "1", issuer: ""}', "deny.0.issuer: should be the issuer's name"),
        ('{serial: "1", issuer: "abc"}', "deny.0.issuer: should be the issuer's name"),
        ("{id: spiffe://example.org/web, expires: tomorrow}", "should be a time with its zone"),
        ("{id: spiffe://example.org/web, until: 2027-01-01T00:00:00Z}", "there is no such field"),
        ("spiffe://example.org/web", "should hold fields"),
    ],
)
def test_an_entry_that_could_never_match_is_an_error(tmp_path: Path, entry: str, expected: str) -> None:
    error = mistake(tmp_path, entry)
    assert expected in str(error)
    assert error.line == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{id: spiffe://example.org/web}", "{id: spiffe://example.org/web, expires: 2027-01-01T00:00:00Z}"),
        ('{serial: "0a", issuer: CN=x}', '{serial: "A", issuer: CN=X}'),
    ],
)
def test_what_stands_twice_is_an_error(tmp_path: Path, first: str, second: str) -> None:
    error = mistake(tmp_path, first, second)
    assert (error.line, error.message) == (4, "deny.1: duplicate entry; remove one")


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    assert "should be 1" in str(mistake(tmp_path, text="version: 2\ndeny: []\n"))


def test_an_entry_that_matches_nothing_is_told_with_its_line(tmp_path: Path) -> None:
    own = CA.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    got = load(
        tmp_path,
        "{id: spiffe://example.org/web}",
        "{id: spiffe://example.org/wed}",
        '{serial: "1", issuer: "CN=Example.org CA"}',
        '{serial: "1", issuer: "CN=Example.com CA"}',
        f'{{serial: "1", issuer: "{own.hex()}"}}',
        '{serial: "1", issuer: "b71c4d05"}',
    )
    place, no_caller, no_ca = (
        f"{tmp_path / 'deny.yaml'}",
        "matches no caller of the policy",
        "matches no CA of the bundles",
    )
    assert [line.partition(";")[0].partition(", so")[0] for line in got.idle] == [
        f"{place}:4: deny.1.id: {no_caller}",
        f"{place}:6: deny.3.issuer: {no_ca}",
        f"{place}:8: deny.5.issuer: {no_ca}",
    ]
    assert len(got.workloads) + len(got.certificates) == 6  # they count all the same


def test_of_many_entries_that_match_nothing_some_are_shown_and_all_counted(tmp_path: Path) -> None:
    got = load(tmp_path, *(f"{{id: spiffe://example.org/gone-{number}}}" for number in range(40)))
    assert len(got.idle) == 11
    assert got.idle[-1].endswith("deny.yaml: 30 more entries match nothing")


def test_a_typo_in_many_digits_is_an_error_at_once(tmp_path: Path) -> None:
    """A pattern with several ways to match them once took a month for this one."""
    assert mistake(tmp_path, f'{{serial: "{"a" * 64}g", issuer: "CN=example.org CA"}}').line == 3


def test_a_deny_list_can_be_json(tmp_path: Path) -> None:
    path = tmp_path / "deny.json"
    path.write_text('{"version": 1, "deny": [{"id": "spiffe://example.org/web", "expires": "2027-01-01T00:00:00Z"}]}')
    assert load_deny_file(path, CALLERS, ()).workloads == {"spiffe://example.org/web": 1798761600}
    path.write_text('{"version": 1, "deny": [\n{"serial": 4711,\n"issuer": "CN=x"}]}')
    with pytest.raises(ConfigError, match=r"deny\.json:2: deny\.0\.serial: should be text"):
        load_deny_file(path, CALLERS, ())
