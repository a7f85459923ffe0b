"""Certificate revocation lists (RFC 5280 section 5) from PEM or DER files, and from folders of them.

Guarantees: a CRL counts only if a CA in the bundles that may sign CRLs signed it; one that says less than it seems (a
delta, an indirect one, an unknown critical extension) is an error; an overdue one still counts, since what it revokes
stays revoked; a file that can't be used any more leaves in force what it held before, and holds up no other.
"""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from livekit_auth_server.core.certificate_names import UNREADABLE, by_public_key
from livekit_auth_server.core.revocation import Crl, DenyList
from livekit_auth_server.files.errors import ConfigError, printable
from livekit_auth_server.files.read import files_in, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from livekit_auth_server.core.certificate_names import CertificateKey

_BEGIN = b"-----BEGIN "
_PEM = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")  # base64 has no "-"
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNREADABLE = (*UNREADABLE, TypeError)


def load_crls(paths: Iterable[Path], authorities: Sequence[x509.Certificate]) -> DenyList:
    """What the CRLs revoke. Each must be signed by one of these CAs. Raises ConfigError."""
    denied, problems = reload_crls(paths, authorities, DenyList())
    if problems:
        raise problems[0]
    return denied


def reload_crls(
    paths: Iterable[Path], authorities: Sequence[x509.Certificate], before: DenyList
) -> tuple[DenyList, list[ConfigError]]:
    """What the CRLs revoke, and why some can't be used: those count as they were `before`."""
    crls: list[Crl] = []
    problems: list[ConfigError] = []
    for path in paths:
        try:
            files = _files(path)
        except ConfigError as error:
            problems.append(error)
            crls += _kept(path, before)
            continue
        for file in files:
            try:
                crls += _load(file, authorities)
            except ConfigError as error:
                problems.append(error)
                crls += _kept(file, before)
    return DenyList(crls=tuple(crls), revoked=frozenset().union(*(crl.revoked for crl in crls))), problems


def _files(path: Path) -> list[Path]:
    """The file, or what is in the folder. An empty one may be a mount that is missing, so it is an error."""
    if not os.path.isdir(path):  # noqa: PTH112 - raises nothing
        return [path]
    if not (files := files_in(path)):
        raise ConfigError(path, "holds no CRLs; put one there that revokes nothing, if nothing is revoked")
    return files


def _kept(path: Path, before: DenyList) -> list[Crl]:
    """What came from this file, or from this folder, before."""
    return [crl for crl in before.crls if path in (Path(crl.file), Path(crl.file).parent)]


def _load(path: Path, authorities: Sequence[x509.Certificate]) -> list[Crl]:
    loaded = []
    for crl in _parse(path):
        revoked, due = frozenset(_revoked(path, crl, authorities)), crl.next_update_utc
        loaded.append(Crl(str(path), f"{path} ({_name(crl)})", int(due.timestamp()) if due else None, revoked))
    return loaded


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
    namesakes = [ca for ca in authorities if _may_have_signed(ca, crl.issuer)]
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


def _may_have_signed(authority: x509.Certificate, issuer: x509.Name) -> bool:
    """Whether the CA has this name and may sign CRLs."""
    try:
        if authority.subject != issuer:
            return False
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True
    except _UNREADABLE:
        return False


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        if not isinstance(crl.signature_hash_algorithm, _HASHES):
            return False
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:
        return False


def _name(crl: x509.CertificateRevocationList) -> str:
    return printable(crl.issuer.rfc4514_string())
