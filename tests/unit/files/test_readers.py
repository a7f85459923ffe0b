"""Every file that the server and its commands read: whatever it holds, only a ConfigError of one line comes of it."""

from __future__ import annotations

import base64
import contextlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from livekit_auth_server.cli import app as cli
from livekit_auth_server.config.settings import Settings, load_settings
from livekit_auth_server.config.tracing import read_headers
from livekit_auth_server.core.revocation import DenyList
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.keys import lifecycle
from livekit_auth_server.keys.edited_file import RefusedError
from livekit_auth_server.keys.keys_file import keys_from_environment
from livekit_auth_server.policy import diff as policy_diff
from livekit_auth_server.policy import explain as policy_tools
from livekit_auth_server.policy.policy_file import load_policies, load_policy
from livekit_auth_server.reload.load import files, fingerprints, load_keys
from livekit_auth_server.stores.redis_client import PasswordFile
from livekit_auth_server.transport.tls import ServerIdentity, expiry
from livekit_auth_server.trust.bundles import load_bundles
from livekit_auth_server.trust.crls import load_crls, reload_crls
from livekit_auth_server.trust.deny_list import load_deny_file
from livekit_auth_server.trust.doubts import of_bundles
from support.pki import NOW, SERVER, Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "s9DkfjE8f7Gh2Kl4Mn6Pq8Rs0TuVwXyZ123"
T0 = int(NOW.timestamp())

FEW = [
    "5",
    "9" * 5000,
    "[" * 3000,
    "- " * 3000 + "x",
    "[" * 150 + "]" * 150,
    '"\\ud800"',
    ".nan",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "&a [*a]",
    "{[a]: 5}",
    "!!timestamp x",
]
MORE = [
    *("[]", "{}", "null", "''", "[5]", "[[]]", "[null]", "{5: 5}", "{null: 5}", "{{a: b}: 5}", "-1", "0x" + "f" * 5000),
    *("1e9999", "-.inf", "2027-01-01", "2027-13-45", "2027-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "!!binary aGk="),
    *("!!python/object:os.system x", "!!set {a}", "!!omap [a: b]", "!!float x", "!!int x", '"\\0"', "&a {a: *a}"),
    *("true", "|\n  x", "{a: " * 500 + "5" + "}" * 500, "<<", "{<<: 5}", "<<: [5]", "1_000", "0o17", "1:30", "?"),
    *("%YAML 1.1\n---\n5", "--- 5\n--- 6", "*x", "!x y", "'" + "x" * 100_000 + "'", "\u2028", "\x85", "{a: 5, a: 6}"),
    *("2027-01-01 00:00:00 +99:99", "00", "0b12", "1.5", "`x", "@x", "\ud800", "\ufeff", "\0", "\x1b[31m"),
]

_ENTRY = "{projects: [default], roles: [guest], rooms: any, identities: any"
_ROLES = "version: 1\nroles: {guest: {video: {room_join: true}}}\n"
GOOD = f"{_ROLES}callers:\n  - id: spiffe://example.org/web\n    allow:\n      - {_ENTRY}}}\n"
_EXPECT = "version: 1\nexpect:\n  - {name: x, caller: spiffe://example.org/web, outcome: deny, request: "
_SETTINGS = """\
tls: {certificate: server.pem, key: server.key}
identity: {trust_domains: {example.org: ca.pem}}
policy: policy.yaml
projects: {default: {url: "wss://livekit.example.org", keys: {file: keys.yaml}}}
"""


def _settings() -> Iterator[str]:
    yield from (_SETTINGS + f"{name}: %s\n" for name in Settings.model_fields if f"{name}:" not in _SETTINGS)
    for part in ("server.pem", "example.org", "ca.pem", "policy.yaml", "default", '"wss://livekit.example.org"'):
        yield _SETTINGS.replace(part, "%s", 1)
    for outer, inner in (("log", "level"), ("limits", "handshake"), ("redis", "url")):
        yield f"{_SETTINGS}{outer}: {{{inner}: %s}}\n"


TEMPLATES: dict[str, list[str]] = {
    "policy": [
        *("%s", "version: 1\ncallers: %s\n", "version: %s\ncallers: []\n", "version: 1\nroles: %s\ncallers: []\n"),
        *("version: 1\nroles: {guest: {video: %s}}\ncallers: []\n", "version: 1\nroles: {%s: {}}\ncallers: []\n"),
        *("version: 1\ncallers: [{id: %s}]\n", "version: 1\ncallers: [{id: spiffe://e.org/w, limits: [{rate: %s}]}]\n"),
        *(GOOD.replace(word, "%s") for word in ("guest]", "any,", "default]", "any}", "spiffe://example.org/web")),
        GOOD.replace("any}", "any, ttl: {default: %s}}"),
        GOOD.replace("rooms: any", "rooms: [{prefix: %s}]"),
    ],
    "deny": [
        *("%s", "version: 1\ndeny: %s\n", "version: 1\ndeny: [%s]\n", "version: 1\ndeny: [{id: %s}]\n"),
        "version: 1\ndeny: [{id: spiffe://example.org/web, expires: %s}]\n",
        *("version: 1\ndeny: [{serial: %s, issuer: CN=x}]\n", "version: 1\ndeny: [{serial: '1', issuer: %s}]\n"),
    ],
    "keys": [
        *("%s", "APIone: %s\n", f"%s: {SECRET}\n", "keys: %s\n", "keys: [%s]\n", "keys: [{id: APIone, secret: %s}]\n"),
        *(
            f"keys:\n  - {{id: APIone, secret: {SECRET}, {name}: %s}}\n"
            for name in ("state", "not_before", "not_after")
        ),
        f"keys:\n  - {{id: %s, secret: {SECRET}}}\n",
    ],
    "expectations": [
        *("%s", "version: 1\nexpect: %s\n", f"{_EXPECT}%s}}\n"),
        *(f"{_EXPECT}{{{name}: %s}}}}\n" for name in ("ttl", "kind", "grants", "room", "attributes", "x")),
        f"{_EXPECT}{{%s: 5}}}}\n",
    ],
    "settings": ["%s", *_settings()],
    "password": ["%s", "%s\nmore"],
    "headers": ["%s", "a: %s"],
}


def _read_policy(path: Path) -> None:
    good = path.with_name("good.yaml")
    good.write_text(GOOD)
    load_policy(path, frozenset({"default"}))
    before, after = load_policies([path, good], None)
    policy_diff.diff(before, after)
    for caller in before.callers.values():
        policy_tools.summary(caller)


def _read_keys(path: Path) -> None:
    content = path.read_bytes()
    lifecycle.listed(path, T0)
    lifecycle.check(path, T0)
    lifecycle.promote(path, "APIone", T0)
    export = path.with_name("export")
    export.unlink(missing_ok=True)
    lifecycle.add(path, lifecycle.NewKey("APInew", export=export), T0)
    path.write_bytes(content)
    lifecycle.convert(path, T0)


def _read_expectations(path: Path) -> None:
    good = path.with_name("good.yaml")
    good.write_text(GOOD)
    policy_tools.run_expectations(load_policy(good, None), path)


def _read_settings(path: Path) -> None:
    found = load_settings(path)
    files(found)
    fingerprints(found)
    load_keys(found)


READERS: dict[str, Callable[[Path], object]] = {
    "policy": _read_policy,
    "deny": lambda path: load_deny_file(path, (), ()),
    "keys": _read_keys,
    "expectations": _read_expectations,
    "settings": _read_settings,
    "password": lambda path: PasswordFile("", path).read(),
    "headers": read_headers,
}


def only_config_errors(kind: str, folder: Path, templates: list[str], values: list[str]) -> None:
    path, refused, shown = folder / f"{kind}.yaml", 0, ""
    for template in templates:
        for value in values:
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(template.replace("%s", value).encode("utf-8", "surrogatepass"))
            try:
                READERS[kind](path)
            except (ConfigError, RefusedError) as error:
                refused, shown = refused + 1, str(error)
            except Exception as error:  # noqa: BLE001 - whatever else it is
                pytest.fail(f"{type(error).__name__} for {value[:40]!r} in {template!r}")
            assert shown.isprintable(), (template, value)
    assert refused


@pytest.mark.parametrize("kind", READERS)
def test_only_config_errors_come_of_a_hostile_file(tmp_path: Path, kind: str) -> None:
    templates = TEMPLATES[kind]
    only_config_errors(kind, tmp_path, templates[:: 1 + len(templates) // 8], FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_only_config_errors_come_of_many_more_hostile_files(tmp_path: Path, kind: str) -> None:
    only_config_errors(kind, tmp_path, TEMPLATES[kind], [*FEW, *MORE])


def test_keys_in_a_variable_that_isnt_utf_8_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^\$KEYS: isn't UTF-8 text$"):
        keys_from_environment("KEYS", {"KEYS": f"APIone: {SECRET}\udcff"})


def test_a_half_character_in_a_key_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.touch(mode=0o600)
    for text in (
        f'APIone: {SECRET}\nAPItwo: "{SECRET}\\ud800"\n',
        f'keys:\n  - {{id: a, secret: "{SECRET}\\udfff"}}\n',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"keys.yaml:2: .*(surrogate|should be text)"):
            lifecycle.listed(path, T0)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 150 + "}" * 150,
        "[{" * 90 + "}]" * 90,
        "? " * 150 + "a",
        "k0: &a0 {z: 1}\n" + "".join(f"k{i}: &a{i} {{*a{i - 1} : 1}}\n" for i in range(1, 60)),
    ],
)
def test_a_key_that_is_a_list_or_a_mapping_is_refused_at_once(text: str) -> None:
    """Constructing such keys takes twice as long with each level."""
    with pytest.raises(ConfigError, match="a key is a list or a mapping"):
        Document.parse(Path("policy.yaml"), text.encode())


@pytest.mark.parametrize(
    "text", ["a: !foo ab", "a: !!set {x, y}", "a: !!binary aGk=", "!foo {a: 1}", "a: !!omap [b: 1]"]
)
def test_a_tag_that_says_what_a_value_is_is_refused(text: str) -> None:
    """A tagged text would be read as a list of its letters, and a tagged mapping as if it had no tag."""
    with pytest.raises(ConfigError, match="a tag that this service doesn't know"):
        Document.parse(Path("policy.yaml"), text.encode())


def test_deep_nesting_is_told_at_once(tmp_path: Path) -> None:
    """ruamel.yaml took 8 s for 3,000 brackets, four times as much for 6,000, and nothing could end it."""
    for text in ("[" * 1_000_000, "- " * 1_000_000, "{a: " * 100_000, "? " * 100_000):
        (tmp_path / "policy.yaml").write_text(text)
        with pytest.raises(ConfigError, match="nests too deeply"):
            load_policy(tmp_path / "policy.yaml", None)


@pytest.mark.parametrize("arguments", [["keys", "list", "\udcff"], ["policy", "check", "a\udc80"]])
def test_arguments_that_arent_utf_8_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["livekit-auth-server", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capfd.readouterr().err == "livekit-auth-server: command line: an argument isn't UTF-8\n"


# Certificates and CRLs

CA = Authority.create("example CA")
LEAF, OWN = CA.issue(uris=["spiffe://example.org/web"]), CA.issue(dns=["localhost"], usages=[SERVER])
ODD_BYTES = (0, 1, 2, 3, 4, 5, 6, 12, 19, 0x30, 0x31, 0x80, 0xFF)


def damaged(der: bytes, chance: random.Random) -> bytes:
    content = bytearray(der)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(content))
        match chance.randrange(6):
            case 0:
                del content[place]
            case 1:
                content.insert(place, chance.randrange(256))
            case _:
                content[place] = chance.choice((*ODD_BYTES, content[place] ^ 1, chance.randrange(256)))
    return bytes(content)


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def _read_bundle(folder: Path, content: bytes) -> None:
    (folder / "ca.pem").write_bytes(content)
    bundles = load_bundles({"example.org": folder / "ca.pem"}, None)
    assert all(doubt.isprintable() for doubt in of_bundles(bundles, T0))
    (folder / "deny.yaml").write_text("version: 1\ndeny: [{serial: '1', issuer: CN=x}]\n")
    load_deny_file(folder / "deny.yaml", (), bundles.union)
    (folder / "crl.pem").write_bytes(CA.crl(LEAF))
    load_crls([folder / "crl.pem"], bundles.union)


def _read_server(certificate: bytes, key: bytes) -> None:
    identity = ServerIdentity(certificate, key)
    try:
        identity.check()
    except ValueError:  # as load_server_identity takes it
        return
    expiry(identity)


@pytest.mark.filterwarnings("ignore::UserWarning")  # cryptography's, about odd values
@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_only_config_errors_come_of_damaged_certificates_and_crls(tmp_path: Path, count: int) -> None:
    crl = x509.load_pem_x509_crl(CA.crl(LEAF)).public_bytes(Encoding.DER)
    for number in range(count):
        chance = random.Random(number)  # noqa: S311 - to be repeated
        with contextlib.suppress(ConfigError):
            _read_bundle(tmp_path, pem("CERTIFICATE", damaged(CA.certificate.public_bytes(Encoding.DER), chance)))
        (tmp_path / "crl.pem").write_bytes(pem("X509 CRL", damaged(crl, chance)))
        reload_crls([tmp_path / "crl.pem"], [CA.certificate], DenyList())
        _read_server(pem("CERTIFICATE", damaged(OWN.certificate.public_bytes(Encoding.DER), chance)), OWN.key_pem)
        _read_server(OWN.cert_pem, damaged(OWN.key_pem, chance))


def test_a_version_that_crls_dont_have_and_a_key_that_cas_dont_have_are_errors(tmp_path: Path) -> None:
    """Each of these ended in a traceback."""
    crl = x509.load_pem_x509_crl(CA.crl(LEAF)).public_bytes(Encoding.DER).replace(b"\x02\x01\x01", b"\x02\x01\x31", 1)
    (tmp_path / "crl.pem").write_bytes(crl)
    with pytest.raises(ConfigError, match="isn't a PEM or DER file of CRLs"):
        load_crls([tmp_path / "crl.pem"], [CA.certificate])
    unknown_key = CA.certificate.public_bytes(Encoding.DER).replace(
        bytes.fromhex("2a8648ce3d0201"), b"\x2a\x05" * 3 + b"\1"
    )
    with pytest.raises(ConfigError, match=r"no bundle holds such a CA|didn't sign"):
        _read_bundle(tmp_path, pem("CERTIFICATE", unknown_key))
    unknown_curve = OWN.certificate.public_bytes(Encoding.DER).replace(
        bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    )
    with pytest.raises(ValueError, match="the certificate isn't PEM"):
        ServerIdentity(pem("CERTIFICATE", unknown_curve), OWN.key_pem).check()
