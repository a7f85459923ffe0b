"""CA bundles from PEM files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from livekit_auth_server.core.identity import TrustBundles
from livekit_auth_server.files.errors import ConfigError, printable
from livekit_auth_server.files.read import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from livekit_auth_server.core.certificate_chain import CertificateBundle


_NO_PEM = "isn't a PEM file of CA certificates"


def load_bundles(domains: Mapping[str, Path], dns: Path | None) -> TrustBundles:
    """The bundle of each trust domain and of DNS names. Raises ConfigError."""
    return TrustBundles({name: _bundle(path) for name, path in domains.items()}, _bundle(dns) if dns else None)


def _bundle(path: Path) -> CertificateBundle:
    content = read_bytes(path)
    if not content.strip():
        raise ConfigError(path, _NO_PEM)
    return authorities(content, path)


def authorities(pem: bytes, where: Path | str) -> CertificateBundle:
    """The CA certificates of a PEM text; none if it is empty. Raises ConfigError."""
    try:
        certificates = tuple(x509.load_pem_x509_certificates(pem)) if pem else ()
    except (ValueError, x509.InvalidVersion):
        raise ConfigError(where, _NO_PEM) from None
    for certificate in certificates:
        if not _is_ca(certificate):
            try:
                subject = printable(certificate.subject.rfc4514_string()) or "without a subject"
            except ValueError:
                subject = "with a subject that can't be read"
            raise ConfigError(
                where, f"holds a certificate that isn't a CA's ({subject}); a leaf here would vouch for itself"
            )
    return certificates


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False
