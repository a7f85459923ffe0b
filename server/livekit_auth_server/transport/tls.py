"""Server credentials for mutual TLS 1.3.

gRPC for Python has no switch for the least TLS version. The pin is an ECDSA server key together with a list of TLS 1.2
ciphers that only fit RSA keys: a TLS 1.2 handshake then finds no shared cipher. gRPC reads the list once, when it is
first imported, and for the whole process; so `pin_tls13` comes before everything else, and every call is checked too.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc

_VARIABLE = "GRPC_SSL_CIPHER_SUITES"
_RSA_ONLY = "ECDHE-RSA-AES256-GCM-SHA384"
_CURVES = ("secp256r1", "secp384r1")  # gRPC's clients take no other


def pin_tls13() -> None:
    """Makes gRPC refuse TLS 1.2. Raises RuntimeError when gRPC is imported already, since it is too late then."""
    if os.environ.get(_VARIABLE) != _RSA_ONLY and "grpc" in sys.modules:
        raise RuntimeError("pin_tls13 must run before grpc is imported")
    os.environ[_VARIABLE] = _RSA_ONLY
    # gRPC writes to stderr by itself, a line for each failed handshake, and blocks when nobody reads it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The server's certificate chain and private key, in PEM. `key` shows in no repr."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "ServerIdentity(***)"

    def check(self) -> None:
        """Raises ValueError with what to do when the pair can't serve TLS 1.3 here."""
        try:
            leaf = x509.load_pem_x509_certificates(self.certificate)[0]
            extensions = leaf.extensions
        except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
            raise ValueError("the certificate isn't PEM: put the server's certificate first, then its chain") from None
        try:
            key = load_pem_private_key(self.key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("the key isn't an unencrypted PEM private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(  # noqa: TRY004 - the file's content is wrong, not a type in the program
                "the key isn't ECDSA: TLS 1.2 can only be shut out with one; issue a P-256 key"
            )
        if key.curve.name not in _CURVES:
            raise ValueError(f"the key is on the curve {key.curve.name}, which no gRPC client takes; issue a P-256 key")
        if _spki(key.public_key()) != _spki(leaf.public_key()):
            raise ValueError("the key doesn't belong to the certificate")
        try:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = x509.SubjectAlternativeName([])
        if not names.get_values_for_type(x509.DNSName) and not names.get_values_for_type(x509.IPAddress):
            raise ValueError("the certificate has no DNS name: clients check the name they connect to")


def _spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def credentials(server: ServerIdentity, client_roots: Iterable[x509.Certificate]) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate from one of these CAs. Raises ValueError as `check` does."""
    import grpc  # noqa: PLC0415 - after pin_tls13

    if os.environ.get(_VARIABLE) != _RSA_ONLY:
        raise RuntimeError("pin_tls13 must run before the server starts")
    server.check()
    roots = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in client_roots)
    return grpc.ssl_server_credentials([(server.key, server.certificate)], roots, require_client_auth=True)
