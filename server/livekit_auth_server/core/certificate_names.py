"""The ways in which a deny-list or a CRL may name a certificate: its serial number, and its issuer in several forms.

Sources: RFC 5280 sections 4.1.2.2 and 5, RFC 4514.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
