"""Certificate revocation lists (RFC 5280 section 5) from PEM or DER files.

Guarantees: a CRL counts only if a CA in the bundles that may sign CRLs signed it; one that says less than it seems (a
delta, an indirect one, an unknown critical extension) is an error; an overdue one still counts, since what it revokes
stays revoked.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from livekit_auth_server.adapters.yaml_file import ConfigError, read_bytes
from livekit_auth_server.core.revocation import NEVER, Crl, DenyList, by_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from livekit_auth_server.core.revocation import CertificateKey

_BEGIN = b"-----BEGIN "
_PEM = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNREADABLE = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


def load_crls(paths: Iterable[Path], authorities: Sequence[x509.Certificate]) -> DenyList:
    """What the CRLs revoke. Each must be signed by one of these CAs. Raises ConfigError."""
    certificates: dict[CertificateKey, int] = {}
    crls: list[Crl] = []
    for path in paths:
        for crl in _parse(path):
            certificates |= dict.fromkeys(_revoked(path, crl, authorities), NEVER)
            due = crl.next_update_utc
            crls.append(Crl(f"{path} ({_name(crl)})", int(due.timestamp()) if due else None))
    return DenyList({}, certificates, tuple(crls))


def _parse(path: Path) -> list[x509.CertificateRevocationList]:
    content = read_bytes(path)
    blocks = _PEM.findall(content)
    try:
        if content.count(_BEGIN) != len(blocks):
            raise ValueError("another thing, or a block that isn't complete")
        crls = [x509.load_pem_x509_crl(block) for block in blocks] or [x509.load_der_x509_crl(content)]
        for crl in crls:  # parts are parsed when they are first used
            _ = crl.issuer, crl.next_update_utc, crl.extensions
    except _UNREADABLE:
        raise ConfigError(path, "isn't a PEM or DER file of CRLs") from None
    return crls


def _revoked(
    path: Path, crl: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]
) -> list[CertificateKey]:
    """The revoked certificates, by the public key of the CA that signed the CRL."""
    _check_scope(path, crl)
    namesakes = [ca for ca in authorities if ca.subject == crl.issuer and _may_sign_crls(ca)]
    if not namesakes:
        raise ConfigError(path, f"is a CRL of {_name(crl)}, and no bundle holds such a CA that may sign CRLs")
    signers = {by_public_key(ca) for ca in namesakes if _signed(crl, ca)}
    if not signers:
        raise ConfigError(path, f"holds a CRL that {_name(crl)} in the bundles didn't sign")
    try:
        serials = [entry.serial_number for entry in crl]
    except _UNREADABLE:
        raise ConfigError(path, "isn't a PEM or DER file of CRLs") from None
    return list(chain.from_iterable(((signer, serial) for serial in serials) for signer in signers))


def _check_scope(path: Path, crl: x509.CertificateRevocationList) -> None:
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise ConfigError(path, "is a delta CRL; give the complete one")
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.indirect_crl:
                raise ConfigError(path, "is an indirect CRL; give each CA's own")
        elif extension.critical:
            raise ConfigError(path, f"has a critical extension that this server doesn't know: {extension.oid}")


def _may_sign_crls(authority: x509.Certificate) -> bool:
    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        if not isinstance(crl.signature_hash_algorithm, _HASHES):
            return False
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:
        return False


def _name(crl: x509.CertificateRevocationList) -> str:
    return crl.issuer.rfc4514_string()
