"""Who a client certificate makes its holder, and every certificate that makes it nobody."""

from __future__ import annotations

import datetime as dt
import re
import time
import warnings
from base64 import encodebytes
from ipaddress import ip_address
from string import ascii_letters, ascii_lowercase, digits
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core import certificate_chain, identity
from livekit_auth_server.core.identity import Identified, Identifier, TrustBundles
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.workload_id import WorkloadId
from support.examples import examples
from support.pki import CLIENT, NOW, SERVER, Authority, Credential, key_usage, name

WEB = "spiffe://example.org/web"
T0 = int(NOW.timestamp())
SECOND, HOUR = dt.timedelta(seconds=1), dt.timedelta(hours=1)

EXAMPLE = Authority.create("example.org CA")
OTHER = Authority.create("other.org CA")
DNS = Authority.create("DNS CA")


def identifier(*, dns: bool = False, example: tuple[Authority, ...] = (EXAMPLE,)) -> Identifier:
    domains = {"example.org": tuple(ca.certificate for ca in example), "other.org": (OTHER.certificate,)}
    return Identifier(TrustBundles(domains, (DNS.certificate,) if dns else None))


def identify(credential: Credential, now: int = T0, *, chain: bytes | None = None, **options: Any) -> Identified:
    sent = credential.chain_pem if chain is None else chain
    return identifier(**options).identify(credential.leaf_pem, sent, now)


def reason(credential: Credential, now: int = T0, **options: Any) -> Reason:
    """Why this certificate is refused."""
    with pytest.raises(Refusal) as caught:
        identify(credential, now, **options)
    assert caught.value.metadata == {}
    return caught.value.reason


def message(credential: Credential, **options: Any) -> str:
    with pytest.raises(Refusal) as caught:
        identify(credential, **options)
    assert caught.value.reason is Reason.CERTIFICATE_INVALID
    return caught.value.message


# What is a workload identity


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (WEB, "example.org"),
        ("spiffe://example.org/ns/web/sa/consult-api", "example.org"),
        ("spiffe://a/b", "a"),
        ("spiffe://under_score-1.example/X.Y_Z-9", "under_score-1.example"),
        ("spiffe://10.0.0.1/web", "10.0.0.1"),
        ("spiffe://example.org/...", "example.org"),
        ("spiffe://example.org/.hidden/..web", "example.org"),
        (f"spiffe://{'d' * 255}/web", "d" * 255),
        (f"spiffe://example.org/{'x' * (2048 - 21)}", "example.org"),
        ("dns:legacy.example.org", None),
        ("dns:localhost", None),
        ("dns:xn--bcher-kva.example", None),
        ("dns:1password.example", None),
        (f"dns:{'x' * 63}.org", None),
    ],
)
def test_these_are_workload_identities(text: str, domain: str | None) -> None:
    parsed = WorkloadId.parse(text)
    assert (parsed.text, str(parsed), parsed.trust_domain) == (text, text, domain)


NO_IDENTITIES = [
    "",
    "web",
    "spiffe:",
    "spiffe://",
    "spiffe:///web",
    "spiffe://example.org",
    "spiffe://example.org/",
    "spiffe://example.org/web/",
    "spiffe://example.org//web",
    "spiffe://example.org/./web",
    "spiffe://example.org/web/..",
    "spiffe://example.org/web/.",
    "spiffe://example.org/../other.org/web",
    "spiffe://example.org/we%62",
    "spiffe://example.org/web%00",
    "spiffe://example.org/web\0",
    "spiffe://example.org/web\0.evil",
    "spiffe://example.org/web\n",
    "spiffe://example.org/web\r\n",
    "spiffe://example.org/web ",
    " spiffe://example.org/web",
    "spiffe://example.org/web?x=1",
    "spiffe://example.org/web?",
    "spiffe://example.org/web#f",
    "spiffe://example.org/web#",
    "spiffe://example.org:443/web",
    "spiffe://user@example.org/web",
    "spiffe://user:pass@example.org/web",
    "spiffe://EXAMPLE.org/web",
    "SPIFFE://example.org/web",
    "Spiffe://example.org/web",
    "https://example.org/web",
    "spiffe:/example.org/web",
    "spiffe:example.org/web",
    "spiffe://[::1]/web",
    "spiffe://exa%6Dple.org/web",
    "spiffe://exämple.org/web",
    "spiffe://example.org/wéb",
    "spiffe://example.org/web\u202e",
    "spiffe://example.org/w*b",
    "spiffe://example.org/web\\x",
    f"spiffe://{'d' * 256}/web",
    f"spiffe://example.org/{'x' * (2049 - 21)}",
    "dns:",
    "dns:*.example.org",
    "dns:Legacy.example.org",
    "dns:legacy.example.org.",
    "dns:.example.org",
    "dns:legacy..example.org",
    "dns:-legacy.example.org",
    "dns:legacy-.example.org",
    "dns:under_score.example.org",
    "dns:10.0.0.1",
    "dns:1",
    "dns:example.1",
    "dns:::1",
    "dns:[::1]",
    "dns:bücher.example",
    "dns:legacy.example.org\0.evil",
    "dns:legacy.example.org\n",
    "dns:legacy.example.org:443",
    "dns:legacy example.org",
    "dns: legacy.example.org",
    "DNS:legacy.example.org",
    "dns://legacy.example.org",
    f"dns:{'x' * 64}.org",
    f"dns:{'x.' * 126}xx",
    f"dns:{WEB}",
]


@pytest.mark.parametrize("text", NO_IDENTITIES)
def test_anything_unusual_is_no_workload_identity(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a (SPIFFE id|DNS name)"):
        WorkloadId.parse(text)


SEGMENT = st.text(ascii_letters + digits + "._-", min_size=1, max_size=12).filter(lambda text: text not in {".", ".."})
SPIFFE_IDS = st.builds(
    lambda domain, path: f"spiffe://{domain}/{'/'.join(path)}",
    st.text(ascii_lowercase + digits + "._-", min_size=1, max_size=20),
    st.lists(SEGMENT, min_size=1, max_size=5),
)
PIECES = [
    "spiffe",
    "dns",
    ":",
    "//",
    "/",
    ".",
    "..",
    "example.org",
    "WEB",
    "web",
    "%2f",
    "\0",
    "\n",
    "@",
    "?",
    "#",
    "é",
]
NEAR_MISSES = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(st.one_of(st.text(), NEAR_MISSES, SPIFFE_IDS, st.from_regex(r"\A(spiffe://|dns:)[ -~]{0,30}\Z")))
@examples(400)
def test_what_parses_is_an_identity_by_every_rule(text: str) -> None:
    """Checked with another parser and without regular expressions; nothing but ValueError is ever raised."""
    try:
        parsed = WorkloadId.parse(text)
    except ValueError:
        return
    assert parsed.text == text
    assert text.isascii()
    assert text.isprintable()
    if parsed.trust_domain is None:
        labels = text.removeprefix("dns:").split(".")
        assert text == text.lower()
        assert all(1 <= len(label) <= 63 and label.replace("-", "").isalnum() for label in labels)
        assert not labels[-1].isdigit()
    else:
        url = urlsplit(text)
        segments = text.removeprefix(f"spiffe://{parsed.trust_domain}/").split("/")
        assert (url.scheme, url.netloc, url.query, url.fragment) == ("spiffe", parsed.trust_domain, "", "")
        assert url.path == "/" + "/".join(segments)
        assert parsed.trust_domain == parsed.trust_domain.lower()
        assert all(segment not in {"", ".", ".."} for segment in segments)
        assert len(text) <= 2048


@given(SPIFFE_IDS, st.data())
@examples(150)
def test_one_character_that_isnt_allowed_spoils_an_identity(text: str, data: st.DataObject) -> None:
    assert WorkloadId.parse(text).text == text
    allowed = set(ascii_letters + digits + "._-/")
    wrong = data.draw(st.characters().filter(lambda char: char not in allowed))
    place = data.draw(st.integers(0, len(text)))
    with pytest.raises(ValueError, match="not a SPIFFE id"):
        WorkloadId.parse(text[:place] + wrong + text[place:])


@pytest.mark.parametrize("text", ["spiffe://" + "a/" * 50_000, "spiffe://a" + "/x" * 50_000, "dns:" + "a-" * 50_000])
def test_long_text_is_refused_fast(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match="not a"):
        WorkloadId.parse(text)
    assert time.perf_counter() - started < 0.5


# Which name in a certificate counts


def test_a_proper_certificate_is_who_it_says() -> None:
    credential = EXAMPLE.issue(uris=[WEB])
    got = identify(credential)
    assert got.identity == WorkloadId(WEB, "example.org")
    assert int(got.serial, 16) == credential.certificate.serial_number
    assert got.serial == got.serial.lower()


def test_the_common_name_is_never_an_identity() -> None:
    assert message(EXAMPLE.issue(common_name=WEB)).endswith("it has no subject alternative name")
    assert reason(DNS.issue(common_name="legacy.example.org"), dns=True) is Reason.CERTIFICATE_INVALID


def test_the_common_name_doesnt_disturb_an_identity() -> None:
    assert identify(EXAMPLE.issue(common_name="spiffe://example.org/admin", uris=[WEB])).identity.text == WEB


@pytest.mark.parametrize(
    "uris",
    [
        [WEB, "spiffe://example.org/admin"],
        [WEB, WEB],
        [WEB, "https://example.org"],
        ["https://example.org/web"],
        ["urn:example:web"],
    ],
)
def test_exactly_one_uri_and_that_a_spiffe_id(uris: list[str]) -> None:
    assert reason(EXAMPLE.issue(uris=uris)) is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize("uri", [uri for uri in NO_IDENTITIES if uri.isascii() and uri and not uri.startswith("dns:")])
def test_a_uri_that_is_no_spiffe_id_makes_nobody(uri: str) -> None:
    assert reason(EXAMPLE.issue(uris=[uri]), dns=True) is Reason.CERTIFICATE_INVALID


def test_a_name_typed_dns_cant_pose_as_a_uri_and_back() -> None:
    assert reason(EXAMPLE.issue(dns=[WEB]), dns=True) is Reason.CERTIFICATE_INVALID
    assert reason(DNS.issue(uris=["dns:legacy.example.org"]), dns=True) is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize("dns", [False, True])
def test_a_spiffe_id_beside_dns_names_is_the_identity(dns: bool) -> None:  # noqa: FBT001
    credential = EXAMPLE.issue(uris=[WEB], dns=["web.example.org", "*.example.org"])
    assert identify(credential, dns=dns).identity.text == WEB


def test_a_spiffe_id_beside_names_of_other_types_is_the_identity() -> None:
    others = [
        x509.RFC822Name("web@example.org"),
        x509.DirectoryName(name("admin")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ]
    assert identify(EXAMPLE.issue(uris=[WEB], other_names=others)).identity.text == WEB


def test_a_dns_name_is_an_identity_only_where_enabled() -> None:
    credential = DNS.issue(dns=["legacy.example.org"])
    assert identify(credential, dns=True).identity == WorkloadId("dns:legacy.example.org", None)
    assert "exactly one URI and holds 0 URIs" in message(credential)


@pytest.mark.parametrize(
    ("dns", "others"),
    [
        (["a.example.org", "b.example.org"], []),
        (["a.example.org", "a.example.org"], []),
        (["a.example.org"], [x509.IPAddress(ip_address("10.0.0.1"))]),
        (["a.example.org"], [x509.RFC822Name("a@example.org")]),
        ([], [x509.IPAddress(ip_address("10.0.0.1"))]),
        (["*.example.org"], []),
        (["A.example.org"], []),
        (["a.example.org."], []),
        (["10.0.0.1"], []),
        (["a.example.org\0.evil"], []),
        ([" a.example.org"], []),
    ],
)
def test_a_dns_identity_is_one_plain_name_and_nothing_beside_it(dns: list[str], others: list[x509.GeneralName]) -> None:
    assert reason(DNS.issue(dns=dns, other_names=others), dns=True) is Reason.CERTIFICATE_INVALID


# What a leaf may be


def extension(oid: str, der: bytes, *, critical: bool = False) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), der), critical


UNKNOWN_CRITICAL = extension("1.2.3.4", b"\5\0", critical=True)
RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to see it refused
RSA_4104 = rsa.generate_private_key(65537, 4104)

REFUSED_LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "CA:TRUE": ({"ca": True}, "it is a CA certificate"),
    "key usage without digitalSignature": ({"digital_signature": False}, "its key usage"),
    "keyCertSign": ({"key_cert_sign": True}, "its key usage"),
    "cRLSign": ({"crl_sign": True}, "its key usage"),
    "extended key usage for servers only": ({"usages": [SERVER]}, "doesn't allow clients"),
    "anyExtendedKeyUsage": ({"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, "doesn't allow clients"),
    "unknown critical extension": (
        {"extensions": [UNKNOWN_CRITICAL]},
        "critical extension",
    ),
    "critical precertificate poison": ({"extensions": [(x509.PrecertPoison(), True)]}, "chain doesn't lead"),
    "RSA of 1024 bits": ({"key": RSA_1024}, "its key is neither"),
    "secp256k1": ({"key": ec.generate_private_key(ec.SECP256K1())}, "its key is neither"),
    "Ed25519": ({"key": ed25519.Ed25519PrivateKey.generate()}, "its key is neither"),
    "P-521": ({"key": ec.generate_private_key(ec.SECP521R1())}, "its key is neither"),
    "RSA of 4104 bits": ({"key": RSA_4104}, "its key is neither"),
}


@pytest.mark.parametrize("kind", REFUSED_LEAVES)
def test_a_certificate_that_isnt_a_workloads_makes_nobody(kind: str) -> None:
    changes, why = REFUSED_LEAVES[kind]
    assert why in message(EXAMPLE.issue(uris=[WEB], **changes))


ACCEPTED_LEAVES: dict[str, dict[str, Any]] = {
    "no extended key usage": {"usages": None},
    "client and server usage": {"usages": [CLIENT, SERVER]},
    "no key usage": {"digital_signature": None},
    "no authority key identifier": {"authority_key_identifier": False},
    "no basic constraints": {"basic_constraints": False},
    "an unknown extension that isn't critical": {"extensions": [extension("1.2.3.4", b"\5\0")]},
    "RSA of 2048 bits": {"rsa_key": True},
    "P-384": {"key": ec.generate_private_key(ec.SECP384R1())},
}


@pytest.mark.parametrize("kind", ACCEPTED_LEAVES)
def test_what_svids_may_leave_out_or_vary_is_accepted(kind: str) -> None:
    assert identify(EXAMPLE.issue(uris=[WEB], **ACCEPTED_LEAVES[kind])).identity.text == WEB


def tlv(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


URI = tlv(0x86, WEB.encode())
SAN = "2.5.29.17"


@pytest.mark.parametrize(
    ("oid", "der"),
    [
        (SAN, tlv(0x30, URI + tlv(0xA3, b""))),  # x400Address
        (SAN, tlv(0x30, URI + tlv(0xA5, b""))),  # ediPartyName
        (SAN, tlv(0x30, tlv(0x86, b"spiffe://example.org/w\xe9b"))),
        (SAN, tlv(0x30, tlv(0x86, "spiffe://example.org/wéb".encode()))),
        (SAN, tlv(0x30, tlv(0x86, b"spiffe://example.org/web\0.evil"))),
        (SAN, tlv(0x30, URI + tlv(0x87, b"\1\2\3"))),  # an IP address of three bytes
        (SAN, tlv(0x30, URI) + b"\0\0"),
        (SAN, b"\x30\x81" + bytes([len(URI)]) + URI),  # a length that isn't in its shortest form
        (SAN, tlv(0x30, b"")),
        (SAN, b""),
        (SAN, b"\xff" * 8),
        ("2.5.29.15", b"\4\0"),  # key usage
        ("2.5.29.37", tlv(0x30, b"\0")),  # extended key usage
        ("1.3.6.1.5.5.7.1.1", tlv(0x30, b"\0")),  # authority information access
    ],
)
def test_a_broken_extension_makes_nobody(oid: str, der: bytes) -> None:
    given: dict[str, Any] = {} if oid == SAN else {"uris": [WEB]}
    given |= {"2.5.29.15": {"digital_signature": None}, "2.5.29.37": {"usages": None}}.get(oid, {})
    credential = EXAMPLE.issue(**given, common_name="x", extensions=[extension(oid, der)])
    assert reason(credential) is Reason.CERTIFICATE_INVALID


def test_a_handmade_subject_alternative_name_is_read_as_any_other() -> None:
    """So that the refusals above are due to what was broken."""
    credential = EXAMPLE.issue(common_name="x", extensions=[extension(SAN, tlv(0x30, URI))])
    assert identify(credential).identity.text == WEB


# Whose CA may vouch for whom


def test_each_trust_domain_speaks_for_itself() -> None:
    assert identify(OTHER.issue(uris=["spiffe://other.org/web"])).identity.trust_domain == "other.org"


@pytest.mark.parametrize("issuer", [OTHER, DNS, Authority.create("a stranger"), Authority.create("example.org CA")])
def test_a_leaf_of_another_domains_ca_is_refused(issuer: Authority) -> None:
    assert "doesn't lead to a CA of its own trust domain" in message(issuer.issue(uris=[WEB]), dns=True)


@pytest.mark.parametrize("issuer", [EXAMPLE, OTHER])
def test_a_spiffe_ca_cant_vouch_for_a_dns_name(issuer: Authority) -> None:
    assert reason(issuer.issue(dns=["legacy.example.org"]), dns=True) is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize(
    "uri", ["spiffe://third.org/web", "spiffe://sub.example.org/web", "spiffe://example.org.evil/web"]
)
def test_a_trust_domain_without_a_bundle_is_nobody(uri: str) -> None:
    assert "isn't one that this server trusts" in message(EXAMPLE.issue(uris=[uri]))


def test_a_domain_with_an_empty_bundle_trusts_nobody() -> None:
    assert "isn't one that this server trusts" in message(EXAMPLE.issue(uris=[WEB]), example=())


def test_a_self_signed_leaf_is_nobody() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    alone = Authority(Authority.create("example.org CA").certificate, key)
    credential = alone.issue(uris=[WEB], key=key)
    assert reason(credential, chain=credential.leaf_pem) is Reason.CERTIFICATE_INVALID


def test_the_union_holds_every_ca_once() -> None:
    shared = (EXAMPLE.certificate, OTHER.certificate)
    bundles = TrustBundles({"a": shared, "b": (OTHER.certificate,)}, (DNS.certificate, EXAMPLE.certificate))
    assert bundles.union == (EXAMPLE.certificate, OTHER.certificate, DNS.certificate)
    assert bundles.for_identity(WorkloadId.parse("spiffe://b/x")) == (OTHER.certificate,)
    assert bundles.for_identity(WorkloadId.parse("spiffe://c/x")) is None


# Intermediates


def test_intermediates_that_are_sent_lead_to_the_bundle() -> None:
    deep = Authority.create("deep", parent=Authority.create("middle", parent=EXAMPLE))
    credential = deep.issue(uris=[WEB])
    assert credential.chain_pem.count(b"BEGIN") == 2
    assert identify(credential).identity.text == WEB


def test_intermediates_that_arent_sent_are_missed() -> None:
    credential = Authority.create("middle", parent=EXAMPLE).issue(uris=[WEB])
    assert reason(credential, chain=b"") is Reason.CERTIFICATE_INVALID


def test_an_intermediate_in_the_bundle_needs_no_root() -> None:
    middle = Authority.create("middle", parent=EXAMPLE)
    credential = middle.issue(uris=[WEB])
    assert identify(credential, chain=b"", example=(middle, EXAMPLE)).identity.text == WEB


@pytest.mark.parametrize("extra", [b"", EXAMPLE.leaf_pem, OTHER.leaf_pem, EXAMPLE.leaf_pem + OTHER.leaf_pem])
def test_an_intermediate_of_another_domain_cant_vouch_for_this_one(extra: bytes) -> None:
    """Whatever roots it sends along: only the bundle's count."""
    credential = Authority.create("example.org intermediate", parent=OTHER).issue(uris=[WEB])
    assert reason(credential, chain=credential.chain_pem + extra) is Reason.CERTIFICATE_INVALID


def test_superfluous_certificates_do_no_harm() -> None:
    assert identify(EXAMPLE.issue(uris=[WEB]), chain=OTHER.leaf_pem + EXAMPLE.leaf_pem).identity.text == WEB
    assert identify(EXAMPLE.issue(uris=[WEB]), chain=b" \n").identity.text == WEB


def test_a_leaf_cant_act_as_an_intermediate() -> None:
    holder = EXAMPLE.issue(uris=["spiffe://example.org/evil"], common_name="evil")
    forger = Authority(holder.certificate, holder.key)
    assert reason(forger.issue(uris=[WEB]), chain=holder.leaf_pem) is Reason.CERTIFICATE_INVALID


BROKEN_INTERMEDIATES: dict[str, dict[str, Any]] = {
    "unknown critical extension": {"extensions": [UNKNOWN_CRITICAL]},
    "for servers only": {"extensions": [(x509.ExtendedKeyUsage([SERVER]), False)]},
    "RSA of 1024 bits": {"key": RSA_1024},
    "Ed25519": {"key": ed25519.Ed25519PrivateKey.generate()},
    # cryptography knows no constraints on URIs; RFC 5280 section 4.2.1.10 wants what isn't known to be refused.
    "URI name constraints": {
        "extensions": [(x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None), True)]
    },
}


@pytest.mark.parametrize("kind", BROKEN_INTERMEDIATES)
def test_a_broken_intermediate_vouches_for_nobody(kind: str) -> None:
    credential = Authority.create("middle", parent=EXAMPLE, **BROKEN_INTERMEDIATES[kind]).issue(uris=[WEB])
    assert reason(credential) is Reason.CERTIFICATE_INVALID


def test_path_length_constraints_hold() -> None:
    last = Authority.create("last", parent=EXAMPLE, path_length=0)
    assert identify(last.issue(uris=[WEB])).identity.text == WEB
    beyond = Authority.create("beyond", parent=last)
    assert reason(beyond.issue(uris=[WEB])) is Reason.CERTIFICATE_INVALID


# Time


def leaf_for(what: str, start: dt.datetime, end: dt.datetime) -> tuple[Credential, Authority]:
    """A leaf and the CA to trust, where the leaf, an intermediate or the root holds from `start` to `end`."""
    period: dict[str, Any] = {"not_before": start, "not_after": end}
    root = Authority.create("root", **(period if what == "root" else {}))
    issuer = Authority.create("middle", parent=root, **period) if what == "intermediate" else root
    return issuer.issue(uris=[WEB], **(period if what == "leaf" else {})), root


EXPIRED = {
    "leaf": Reason.CERTIFICATE_EXPIRED,
    "intermediate": Reason.CERTIFICATE_EXPIRED,
    "root": Reason.CERTIFICATE_INVALID,  # that one isn't the caller's to renew
}


@pytest.mark.parametrize("what", EXPIRED)
@pytest.mark.parametrize("known", [False, True])
def test_every_certificate_of_the_chain_counts_to_the_second(what: str, known: bool) -> None:  # noqa: FBT001
    credential, root = leaf_for(what, NOW - 60 * SECOND, NOW + 60 * SECOND)
    judge = identifier(example=(root,))

    def at(now: int) -> Identified:
        judge_now = judge if known else identifier(example=(root,))
        return judge_now.identify(credential.leaf_pem, credential.chain_pem, now)

    for inside in (T0, T0 - 60, T0 + 60):
        assert at(inside).identity.text == WEB
    for outside in (T0 - 61, T0 + 61):
        with pytest.raises(Refusal) as caught:
            at(outside)
        assert caught.value.reason is EXPIRED[what]


@pytest.mark.parametrize("what", EXPIRED)
def test_the_period_is_the_whole_chains(what: str) -> None:
    credential, root = leaf_for(what, NOW - 60 * SECOND, NOW + 60 * SECOND)
    got = identify(credential, example=(root,))
    assert (got.valid_from, got.valid_until) == (T0 - 60, T0 + 60)


def test_a_leaf_that_is_expired_and_of_another_domains_ca_is_still_refused() -> None:
    assert reason(OTHER.issue(uris=[WEB], not_after=NOW - SECOND)) is Reason.CERTIFICATE_EXPIRED


def test_a_superfluous_expired_certificate_does_no_harm() -> None:
    old = Authority.create("old", parent=EXAMPLE, not_after=NOW - HOUR)
    assert identify(EXAMPLE.issue(uris=[WEB]), chain=old.leaf_pem).identity.text == WEB


# What is remembered


def test_a_known_certificate_isnt_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known, credential = identifier(), EXAMPLE.issue(uris=[WEB])
    first = known.identify(credential.leaf_pem, b"", T0)
    monkeypatch.setattr(Identifier, "_verify", lambda *_: pytest.fail("verified again"))
    assert known.identify(credential.leaf_pem, b"", T0 + 1) is first


def test_a_known_certificate_expires_by_the_given_clock() -> None:
    known, credential = identifier(), EXAMPLE.issue(uris=[WEB], not_after=NOW + 10 * SECOND)
    assert known.identify(credential.leaf_pem, b"", T0).identity.text == WEB
    with pytest.raises(Refusal) as caught:
        known.identify(credential.leaf_pem, b"", T0 + 11)
    assert caught.value.reason is Reason.CERTIFICATE_EXPIRED
    assert known.identify(credential.leaf_pem, b"", T0 + 10).identity.text == WEB


def test_nothing_that_an_old_bundle_vouched_for_is_remembered() -> None:
    credential = EXAMPLE.issue(uris=[WEB])
    known = identifier()
    assert known.identify(credential.leaf_pem, b"", T0).identity.text == WEB
    renewed = Identifier(TrustBundles({"example.org": (OTHER.certificate,)}))
    with pytest.raises(Refusal):
        renewed.identify(credential.leaf_pem, b"", T0)
    assert known.identify(credential.leaf_pem, b"", T0).identity.text == WEB


def test_a_refusal_isnt_remembered() -> None:
    known, credential = identifier(), EXAMPLE.issue(uris=[WEB], not_before=NOW + 10 * SECOND)
    with pytest.raises(Refusal):
        known.identify(credential.leaf_pem, b"", T0)
    assert known.identify(credential.leaf_pem, b"", T0 + 10).identity.text == WEB


def test_the_chain_is_part_of_what_is_remembered() -> None:
    """A leaf that was accepted with its intermediates is still refused without them."""
    known, credential = identifier(), Authority.create("middle", parent=EXAMPLE).issue(uris=[WEB])
    assert known.identify(credential.leaf_pem, credential.chain_pem, T0).identity.text == WEB
    with pytest.raises(Refusal):
        known.identify(credential.leaf_pem, b"", T0)


def test_where_leaf_and_chain_meet_is_part_of_what_is_remembered() -> None:
    known, credential = identifier(), Authority.create("middle", parent=EXAMPLE).issue(uris=[WEB])
    assert known.identify(credential.leaf_pem, credential.chain_pem, T0).identity.text == WEB
    with pytest.raises(Refusal):
        known.identify(credential.cert_pem, b"", T0)


def test_a_renewed_root_takes_over_when_the_old_one_expires() -> None:
    """Both have one name and one key, and the old one is tried first."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = Authority.create("root", key=key, not_after=NOW + 10 * SECOND)
    new = Authority.create("root", key=key)
    known, credential = identifier(example=(old, new)), new.issue(uris=[WEB])
    assert known.identify(credential.leaf_pem, b"", T0).valid_until == T0 + 10
    assert known.identify(credential.leaf_pem, b"", T0 + 11).valid_until > T0 + 11


def test_what_is_remembered_is_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_CACHED_CERTIFICATES", 2)
    known, credential = identifier(), EXAMPLE.issue(uris=[WEB])
    for count in range(1, 6):
        known.identify(credential.leaf_pem, OTHER.leaf_pem * count, T0)
        assert len(known._verified) <= 2
    assert all(len(key) == 64 for key in known._verified)


# Garbage, and too much of it


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"garbage",
        b"\0" * 64,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        EXAMPLE.issue(uris=[WEB]).leaf_pem[:-40],
        EXAMPLE.issue(uris=[WEB]).certificate.public_bytes(Encoding.DER),
        EXAMPLE.issue(uris=[WEB]).key_pem,
        EXAMPLE.issue(uris=[WEB]).leaf_pem * 2,
        EXAMPLE.issue(uris=[WEB]).leaf_pem + OTHER.issue(uris=["spiffe://other.org/web"]).leaf_pem,
    ],
)
def test_a_leaf_that_isnt_one_certificate_in_pem_makes_nobody(pem: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        identifier().identify(pem, b"", T0)
    assert caught.value.reason is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize("chain", [b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_chain_that_isnt_pem_makes_nobody(chain: bytes) -> None:
    assert reason(EXAMPLE.issue(uris=[WEB]), chain=chain) is Reason.CERTIFICATE_INVALID


def test_a_chain_over_64_kib_is_refused_unread() -> None:
    assert "too large" in message(EXAMPLE.issue(uris=[WEB]), chain=b"x" * 65536)


def test_more_than_eight_certificates_beside_the_leaf_are_refused() -> None:
    credential = EXAMPLE.issue(uris=[WEB])
    assert identify(credential, chain=EXAMPLE.leaf_pem * 8).identity.text == WEB
    assert "more than 8 other certificates" in message(credential, chain=EXAMPLE.leaf_pem * 9)


def tangle(names: int, copies: int) -> tuple[Authority, bytes]:
    """CAs that all sign one another and lead nowhere, within the 64 KiB."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(names)]

    def signed(subject: int, issuer: int) -> x509.Certificate:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[issuer].public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name(f"tangle {subject}"))
            .issuer_name(name(f"tangle {issuer}"))
            .public_key(keys[subject].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - HOUR)
            .not_valid_after(NOW + HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage(key_cert_sign=True, digital_signature=False), critical=True)
            .add_extension(identifier, critical=False)
            .sign(keys[issuer], hashes.SHA256())
        )

    made = [signed(a, b) for a in range(names) for b in range(names) for _ in range(copies) if a != b or names == 1]
    return Authority(made[0], keys[0]), b"".join(c.public_bytes(Encoding.PEM) for c in made)


@pytest.mark.parametrize(("names", "copies"), [(1, 8), (2, 4), (3, 1)])
def test_a_tangle_of_cas_is_refused_fast(names: int, copies: int) -> None:
    issuer, chain = tangle(names, copies)
    credential = issuer.issue(uris=[WEB])
    started = time.perf_counter()
    assert "doesn't lead to a CA" in message(credential, chain=chain)
    assert time.perf_counter() - started < 0.5


def mesh(key: Any) -> bytes:
    """Eight CAs of one name and the real CA's key, or this one, that nobody who may has signed."""
    keys = key.public_key()
    made = [
        x509.CertificateBuilder()
        .subject_name(name("example.org CA"))
        .issuer_name(name("example.org CA"))
        .public_key(EXAMPLE.key.public_key() if number % 2 else keys)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, digital_signature=False), critical=True)
        .sign(key, hashes.SHA256())
        for number in range(8)
    ]
    return b"".join(c.public_bytes(Encoding.PEM) for c in made)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_junk_between_leaf_and_ca_costs_eight_signature_checks(
    curve: ec.EllipticCurve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verifier, which tries what it is given in every order, is given nothing that no CA vouches for."""
    checks: list[object] = []
    given: list[x509.Certificate] = []
    signed = certificate_chain._signed

    class Recorded:
        def __init__(self, verifier: Any) -> None:
            self.verifier = verifier

        def verify(self, leaf: x509.Certificate, intermediates: list[x509.Certificate]) -> Any:
            given.extend(intermediates)
            return self.verifier.verify(leaf, intermediates)

    class Builder:
        def __init__(self) -> None:
            self.builder: Any = PolicyBuilder()

        def __getattr__(self, name: str) -> Any:
            def step(*arguments: Any, **options: Any) -> Any:
                self.builder = getattr(self.builder, name)(*arguments, **options)
                return self

            return step

        def build_client_verifier(self) -> Recorded:
            return Recorded(self.builder.build_client_verifier())

    def counted(*pair: Any) -> bool:
        checks.append(pair)
        return signed(*pair)

    monkeypatch.setattr(certificate_chain, "PolicyBuilder", Builder)
    monkeypatch.setattr(certificate_chain, "_signed", counted)
    key = ec.generate_private_key(curve)
    fake = Authority.create("example.org CA", key=key).issue(uris=[WEB])
    assert "doesn't lead to a CA" in message(fake, chain=mesh(key))
    assert identify(EXAMPLE.issue(uris=[WEB]), chain=mesh(key)).identity.text == WEB
    assert (len(checks), given) == (16, [])


def test_an_intermediate_that_a_ca_vouches_for_is_found_among_junk() -> None:
    upper = Authority.create("upper", parent=EXAMPLE)
    lower = Authority.create("lower", parent=upper)
    junk = [Authority.create("upper", parent=Authority.create("example.org CA")) for _ in range(2)]
    chain = b"".join(c.leaf_pem for c in (junk[0], lower, junk[1], upper))
    assert identify(lower.issue(uris=[WEB]), chain=chain).identity.text == WEB


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP521R1()), RSA_4104])
def test_an_intermediate_with_a_key_that_no_issuer_uses_is_refused(key: Any) -> None:
    middle = Authority.create("middle", parent=EXAMPLE, key=key)
    assert "the key of a certificate of its chain" in message(middle.issue(uris=[WEB]))


# What refusals cost


STRANGE = [OTHER.issue(uris=[WEB], key=OTHER.key) for _ in range(110)]


def failing(known: Identifier, number: int, now: int = T0, source: str = "ipv4:192.0.2.1") -> Refusal:
    """How a certificate is refused that nobody has seen before."""
    with pytest.raises(Refusal) as caught:
        known.identify(STRANGE[number].leaf_pem, b"", now, source)
    return caught.value


def test_a_refusal_is_remembered_for_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    known, verified = identifier(), [0]
    verify = Identifier._verify

    def counted(*about: Any) -> Identified:
        verified[0] += 1
        return verify(*about)

    monkeypatch.setattr(Identifier, "_verify", counted)
    for _ in range(100):
        assert failing(known, 1).reason is Reason.CERTIFICATE_INVALID
    assert verified == [1]
    assert failing(known, 1, T0 + 5).reason is Reason.CERTIFICATE_INVALID
    assert verified == [2]


def test_only_so_many_certificates_are_refused_in_a_second() -> None:
    known = identifier()
    caller, late = EXAMPLE.issue(uris=[WEB]), EXAMPLE.issue(uris=["spiffe://example.org/late"])
    assert known.identify(caller.leaf_pem, b"", T0, "ipv4:192.0.2.1").identity.text == WEB
    reasons = [failing(known, number).reason for number in range(50)]
    assert reasons == [Reason.CERTIFICATE_INVALID] * 5 + [Reason.OVERLOADED] * 45
    assert failing(known, 99).retry_after == 1
    assert known.identify(late.leaf_pem, b"", T0, "ipv4:192.0.2.2").identity.text == "spiffe://example.org/late"
    for source in range(3, 30):
        failing(known, 50 + source, source=f"ipv4:192.0.2.{source}")
    assert failing(known, 100, source="ipv4:192.0.2.4").reason is Reason.OVERLOADED
    newcomer = EXAMPLE.issue(uris=["spiffe://example.org/newcomer"])
    assert known.identify(newcomer.leaf_pem, b"", T0, "ipv4:192.0.2.99").serial, "others' refusals keep nobody out"
    assert failing(known, 102, source="ipv4:192.0.2.98").reason is Reason.CERTIFICATE_INVALID
    assert failing(known, 103, source="ipv4:192.0.2.98").reason is Reason.OVERLOADED
    assert known.identify(caller.leaf_pem, b"", T0, "ipv4:192.0.2.1").identity.text == WEB, "known, so never charged"
    assert failing(known, 101, T0 + 1).reason is Reason.CERTIFICATE_INVALID


def test_the_addresses_of_one_ipv6_network_are_one_source() -> None:
    known = identifier()
    sources = [f"ipv6:%5B2001:db8::{number:x}%5D" for number in range(1, 9)]
    reasons = [failing(known, number, source=source).reason for number, source in enumerate(sources)]
    assert reasons == [Reason.CERTIFICATE_INVALID] * 5 + [Reason.OVERLOADED] * 3
    assert failing(known, 50, source="ipv6:[2001:db8:0:1::1]").reason is Reason.CERTIFICATE_INVALID


def test_a_leaf_that_is_refused_at_sight_is_not_charged() -> None:
    known, credential = identifier(), EXAMPLE.issue(uris=[WEB])
    for number in range(50):
        with pytest.raises(Refusal) as caught:
            known.identify(b"junk %d" % number, b"", T0)
        assert caught.value.reason is Reason.CERTIFICATE_INVALID
    assert known.identify(credential.leaf_pem, b"", T0).identity.text == WEB


def test_certificates_that_hold_are_never_charged() -> None:
    known = identifier()
    for number in range(60):
        credential = EXAMPLE.issue(uris=[f"spiffe://example.org/w{number}"], key=EXAMPLE.key)
        assert known.identify(credential.leaf_pem, b"", T0).serial


def test_refusals_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_CACHED_REFUSALS", 4)
    known = identifier()
    for number in range(20):
        failing(known, number, source=f"{number}")
        assert len(known._refused) <= 4


def test_impostors_of_the_ca_dont_keep_a_caller_out() -> None:
    impostors = b"".join(Authority.create("example.org CA").leaf_pem for _ in range(8))
    assert identify(EXAMPLE.issue(uris=[WEB]), chain=impostors).identity.text == WEB


MIDDLE = Authority.create("middle", parent=EXAMPLE)
LEAF = MIDDLE.issue(uris=[WEB])


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n"


@given(st.binary(max_size=200), st.binary(max_size=200))
@examples(100)
def test_any_bytes_are_refused_and_nothing_else_is_raised(leaf: bytes, chain: bytes) -> None:
    for pair in ((leaf, chain), (pem(leaf), pem(chain)), (LEAF.leaf_pem, pem(chain) + chain)):
        with pytest.raises(Refusal):
            identifier().identify(*pair, T0)


@given(st.sampled_from([LEAF.certificate, MIDDLE.certificate]), st.data())
@examples(400)
def test_an_altered_certificate_makes_nobody(certificate: x509.Certificate, data: st.DataObject) -> None:
    der = bytearray(certificate.public_bytes(Encoding.DER))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(der) - 1))
        der[place] ^= data.draw(st.integers(1, 255))
    if bytes(der) == certificate.public_bytes(Encoding.DER):
        return
    unused_bits = len(der) - len(certificate.signature) - 1
    if [place for place, byte in enumerate(certificate.public_bytes(Encoding.DER)) if byte != der[place]] == [
        unused_bits
    ]:
        return  # says that the signature's last bits don't count: the same signature, if they are zero
    altered = pem(bytes(der))
    pair = (altered, MIDDLE.leaf_pem) if certificate is LEAF.certificate else (LEAF.leaf_pem, altered)
    with warnings.catch_warnings(action="ignore"), pytest.raises(Refusal):  # cryptography warns of some as it reads
        identifier().identify(*pair, T0)


def test_a_refusal_says_nothing_that_the_certificate_holds() -> None:
    """A log line or an error can't be forged with the names of a certificate."""
    for uri in ("spiffe://example.org/\nforged: line", "spiffe://evil.example/x"):
        assert not re.search(r"forged|evil", message(EXAMPLE.issue(uris=[uri])))
