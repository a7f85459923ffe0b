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

from livekit_auth_server.core.certificate_names import UNREADABLE

if TYPE_CHECKING:
    import datetime as dt
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
            extensions, public_key = leaf.extensions, _spki(leaf.public_key())
        except UNREADABLE:
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
        if _spki(key.public_key()) != public_key:
            raise ValueError("the key doesn't belong to the certificate")
        try:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = x509.SubjectAlternativeName([])
        if not names.get_values_for_type(x509.DNSName) and not names.get_values_for_type(x509.IPAddress):
            raise ValueError("the certificate has no DNS name: clients check the name they connect to")


def _spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


@dataclass(frozen=True, slots=True)
class _Handshake:
    """What a handshake needs. gRPC takes a configuration over when it is handed one, so each is good for once."""

    server: ServerIdentity
    roots: tuple[x509.Certificate, ...]
    configuration: grpc.ServerCertificateConfiguration


class Endpoint:
    """The certificate that the server shows and the CAs that it takes client certificates from, both replaceable.

    New handshakes use what `replace` was given last; open connections go on. `handshakes` is how many began.
    """

    def __init__(self, server: ServerIdentity, roots: Iterable[x509.Certificate]) -> None:
        """Raises ValueError as ServerIdentity.check does."""
        if os.environ.get(_VARIABLE) != _RSA_ONLY:
            raise RuntimeError("pin_tls13 must run before the server starts")
        server.check()
        self._current = self._handed = _handshake(server, tuple(roots))
        self.handshakes = 0

    @property
    def server(self) -> ServerIdentity:
        """The certificate and key that new handshakes show."""
        return self._current.server

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that demand a client certificate. For one port: what changes is handed out once."""
        import grpc  # noqa: PLC0415 - after pin_tls13

        self._handed = current = self._current
        return grpc.dynamic_ssl_server_credentials(
            current.configuration,
            self._changed,  # type: ignore[arg-type]  # None is for no change
            require_client_authentication=True,
        )

    def replace(self, *, server: ServerIdentity | None = None, roots: Iterable[x509.Certificate] | None = None) -> None:
        """Lets new handshakes use this certificate, which was checked, or these CAs; what isn't given stays."""
        now = self._current
        self._current = _handshake(server or now.server, now.roots if roots is None else tuple(roots))

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC on a thread of its own before each handshake, one at a time: it must not raise or wait."""
        self.handshakes += 1
        current = self._current
        if current is self._handed:
            return None
        self._handed = current
        return current.configuration


def _handshake(server: ServerIdentity, roots: tuple[x509.Certificate, ...]) -> _Handshake:
    import grpc  # noqa: PLC0415 - after pin_tls13

    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in roots)
    return _Handshake(server, roots, grpc.ssl_server_certificate_configuration([(server.key, server.certificate)], pem))


def expiry(server: ServerIdentity) -> dt.datetime:
    """When the server's certificate ends."""
    return x509.load_pem_x509_certificates(server.certificate)[0].not_valid_after_utc
