"""Workloads and certificates that aren't believed any more, although their time isn't over.

Guarantees: a certificate is named by its serial number together with its issuer, in each way that a list may name the
issuer; a denied certificate refuses every chain that goes through it, not only the leaf's holder; what is asked for a
call is a look-up, however long the list.
Sources: RFC 5280 sections 4.1.2.2 and 5, RFC 4514.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from livekit_auth_server.core.identity import Identified

NEVER = sys.maxsize  # when an entry without an end lapses, seconds since the epoch

# What cryptography raises for a certificate or CRL that it can't read, also when a part of it is first used.
UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)

CertificateKey = tuple[str, int]
"""An issuer as one of the functions below writes it, and the serial number."""


def by_name(issuer: x509.Name) -> str:
    """An issuer by its name (RFC 4514).

    Case counts for nothing, as in RFC 5280 section 7.1. Nor does the order of the parts: tools print it either way, and
    an entry that matches nothing because of it would let somebody in.
    """
    return f"name:{','.join(sorted(part.rfc4514_string().casefold() for part in issuer.rdns))}"


def by_key_id(key_id: bytes) -> str:
    """An issuer by its subject key id."""
    return f"id:{key_id.hex()}"


def by_public_key(issuer: x509.Certificate) -> str:
    """An issuer by its public key, which unlike name and key id nobody else can have."""
    spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key:{hashlib.sha256(spki).hexdigest()}"


def certificate_keys(chain: Sequence[x509.Certificate]) -> frozenset[CertificateKey]:
    """Every way in which a list may name a certificate of this verified chain, which goes from the leaf to a CA."""
    return frozenset(
        (issuer, certificate.serial_number)
        for certificate, signer in zip_longest(chain, chain[1:])
        for issuer in _issuers(certificate, signer)
    )


def _issuers(certificate: x509.Certificate, signer: x509.Certificate | None) -> Iterator[str]:
    yield by_name(certificate.issuer)
    if signer is not None:  # None: the bundle's own CA, whose issuer isn't looked for
        yield from issuer_names(signer)


def issuer_names(issuer: x509.Certificate) -> Iterator[str]:
    """Every way in which a list may name this issuer."""
    yield by_name(issuer.subject)
    yield by_public_key(issuer)
    yield by_key_id(x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest)
    try:
        yield by_key_id(issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest)
    except x509.ExtensionNotFound:
        return


@dataclass(frozen=True, slots=True)
class Crl:
    """A CRL that is in force: its file, what to call it, what it revokes.

    `next_update` is when its next issue was due, in seconds since the epoch.
    """

    file: str
    name: str
    next_update: int | None
    revoked: frozenset[CertificateKey] = frozenset()

    def stale(self, now: float) -> bool:
        """Whether the next issue is overdue: then newer revocations are missing."""
        return self.next_update is not None and self.next_update < now


@dataclass(frozen=True, slots=True)
class DenyList:
    """Workload ids and certificates that are refused, each until a time in seconds since the epoch.

    `revoked` is what the CRLs revoke, for good. `idle` says which entries match nothing now, for whoever wrote them.
    """

    workloads: Mapping[str, int] = field(default_factory=dict)
    certificates: Mapping[CertificateKey, int] = field(default_factory=dict)
    crls: tuple[Crl, ...] = ()
    revoked: frozenset[CertificateKey] = frozenset()
    idle: tuple[str, ...] = ()

    def with_list(self, other: DenyList) -> DenyList:
        """The same CRLs, with the workloads and certificates that another list names."""
        return replace(self, workloads=other.workloads, certificates=other.certificates, idle=other.idle)

    def with_crls(self, other: DenyList) -> DenyList:
        """The same list, with the CRLs of another."""
        return replace(self, crls=other.crls, revoked=other.revoked)

    def check(self, identified: Identified, now: int) -> None:
        """Raises CERTIFICATE_REVOKED when the caller, or a certificate of its chain, is denied now."""
        if now < self.workloads.get(identified.identity.text, 0):
            raise Refusal(Reason.CERTIFICATE_REVOKED, "this workload is on the server's deny-list")
        listed = self.certificates and any(now < self.certificates.get(key, 0) for key in identified.certificates)
        if listed or not self.revoked.isdisjoint(identified.certificates):
            raise Refusal(Reason.CERTIFICATE_REVOKED, "your certificate, or one that it was issued under, is revoked")

    def stale(self, now: float) -> list[Crl]:
        """The CRLs that are overdue."""
        return [crl for crl in self.crls if crl.stale(now)]
