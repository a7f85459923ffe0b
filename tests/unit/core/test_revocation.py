"""Who is denied: workloads by id, certificates by serial and issuer, whole chains by any certificate in them."""

from __future__ import annotations

import pytest
from cryptography import x509

from livekit_auth_server.core.certificate_names import by_key_id, by_name, by_public_key
from livekit_auth_server.core.identity import Identified, Identifier, TrustBundles
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.revocation import NEVER, Crl, DenyList
from support.pki import NOW, Authority, Credential

T0 = int(NOW.timestamp())
WEB = "spiffe://example.org/web"
ROOT = Authority.create("example.org CA")
MIDDLE = Authority.create("middle", parent=ROOT)
NAMESAKE = Authority.create("example.org CA")
BUNDLES = TrustBundles({"example.org": (ROOT.certificate, NAMESAKE.certificate)})


def identified(credential: Credential) -> Identified:
    return Identifier(BUNDLES).identify(credential.leaf_pem, credential.chain_pem, T0)


def denied(listed: DenyList, credential: Credential, now: int = T0) -> bool:
    try:
        listed.check(identified(credential), now)
    except Refusal as refusal:
        return refusal.reason is Reason.CERTIFICATE_REVOKED
    return False


def certificates(*keys: tuple[str, int], until: int = NEVER) -> DenyList:
    return DenyList(certificates=dict.fromkeys(keys, until))


def key_id(authority: Authority) -> bytes:
    return authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


LEAF = ROOT.issue(uris=[WEB])
SERIAL = LEAF.certificate.serial_number


def test_an_empty_list_denies_nobody() -> None:
    assert not denied(DenyList(), LEAF)


def test_a_workload_is_denied_whatever_its_certificate() -> None:
    listed = DenyList(workloads={WEB: NEVER})
    assert denied(listed, LEAF)
    assert denied(listed, MIDDLE.issue(uris=[WEB]))
    assert not denied(listed, ROOT.issue(uris=["spiffe://example.org/webb"]))


@pytest.mark.parametrize(
    "issuer",
    [by_name(ROOT.certificate.subject), by_key_id(key_id(ROOT)), by_public_key(ROOT.certificate)],
    ids=["name", "key id", "public key"],
)
def test_a_certificate_is_denied_by_each_name_of_its_issuer(issuer: str) -> None:
    assert denied(certificates((issuer, SERIAL)), LEAF)
    assert not denied(certificates((issuer, SERIAL)), ROOT.issue(uris=[WEB]))
    assert not denied(certificates((issuer, SERIAL + 1)), LEAF)


def test_a_serial_of_another_issuer_is_another_certificate() -> None:
    assert not denied(certificates((by_key_id(key_id(NAMESAKE)), SERIAL)), LEAF)
    assert not denied(certificates((by_public_key(NAMESAKE.certificate), SERIAL)), LEAF)


def test_a_denied_intermediate_denies_what_it_signed() -> None:
    listed = certificates((by_public_key(ROOT.certificate), MIDDLE.certificate.serial_number))
    assert denied(listed, MIDDLE.issue(uris=[WEB]))
    assert not denied(listed, LEAF)


def test_a_leaf_of_an_intermediate_is_denied_by_the_intermediates_name() -> None:
    leaf = MIDDLE.issue(uris=[WEB])
    assert denied(certificates((by_name(MIDDLE.certificate.subject), leaf.certificate.serial_number)), leaf)


def test_an_entry_lapses_at_its_time() -> None:
    for listed in (DenyList(workloads={WEB: T0 + 1}), certificates((by_key_id(key_id(ROOT)), SERIAL), until=T0 + 1)):
        assert denied(listed, LEAF, T0)
        assert not denied(listed, LEAF, T0 + 1)


def test_a_crl_is_stale_after_its_next_issue_was_due() -> None:
    crls = (Crl("", "a", T0), Crl("", "b", None), Crl("", "c", T0 + 10))
    assert DenyList(crls=crls).stale(T0) == []
    assert [crl.name for crl in DenyList(crls=crls).stale(T0 + 1)] == ["a"]


def test_what_a_crl_revokes_is_refused_for_good_whatever_the_list_says() -> None:
    key = (by_public_key(ROOT.certificate), SERIAL)
    revoked = DenyList(crls=(Crl("", "a", None, frozenset({key})),), revoked=frozenset({key}))
    assert denied(revoked, LEAF)
    assert denied(DenyList().with_crls(revoked), LEAF)
    assert denied(revoked.with_list(certificates(key, until=T0 - 1)), LEAF)
    assert not denied(revoked, ROOT.issue(uris=[WEB]))
    assert not denied(revoked.with_crls(DenyList()), LEAF)
    assert denied(DenyList(workloads={WEB: NEVER}).with_crls(revoked), ROOT.issue(uris=[WEB]))
