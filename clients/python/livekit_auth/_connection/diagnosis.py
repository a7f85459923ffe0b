"""Finds out why there is no connection to the server by making a test connection: gRPC's errors don't say.

gRPC reports one of several addresses at random, and a client certificate refused under TLS 1.3 looks to it like any
lost connection. So when a call fails without a response, a thread connects once with Python's `ssl` while the call is
retried; no call takes longer because of it. The test connection sends only gRPC's TLS handshake and an empty HTTP/2
preface. There is at most one test connection per PAUSE_SECONDS, and its steps are limited in time.
"""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from livekit_auth._connection.config import Files
from livekit_auth._messages.errors import Finding
from livekit_auth._process.single_flight import SingleFlight

if TYPE_CHECKING:
    from livekit_auth._connection.certificates import Certificates
    from livekit_auth._connection.config import Config

PAUSE_SECONDS = 5.0
"""The time between two test connections, and how long later calls use a finding."""
STEP_SECONDS = 2.0
"""The time limit for connecting to an address, and for each response."""
MAX_ADDRESSES = 4

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # RFC 9113, 3.4: with empty SETTINGS
_NAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


class Diagnosis:
    """Looks for the cause in the background. Safe to use from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._flight = SingleFlight()
        self._certificates: Certificates | None = None
        self._looked_at = -math.inf
        self._found: Finding | None = None

    def begin(self, certificates: Certificates) -> None:
        """Starts a test connection, unless one is running or ended within PAUSE_SECONDS. Never waits."""
        if time.monotonic() - self._looked_at >= PAUSE_SECONDS and not any(map(_variable, _PROXIES)):
            self._certificates = certificates
            self._flight.start(self._look)

    def finding(self, began: float) -> Finding | None:
        """What the last test connection found, unless it ended long before the call began (time.monotonic)."""
        return self._found if self._looked_at >= began - PAUSE_SECONDS else None

    def _look(self) -> None:
        certificates = self._certificates
        if certificates is None or time.monotonic() - self._looked_at < PAUSE_SECONDS:
            return
        try:
            self._found = look(self._config, certificates)
        except (OSError, ValueError):  # such as half-replaced certificate files: gRPC's own error is used
            self._found = None
        self._looked_at = time.monotonic()


def _variable(name: str) -> str | None:
    return os.environ.get(name) or os.environ.get(name.upper())


def look(config: Config, certificates: Certificates) -> Finding | None:
    """Connects to each of the server's addresses. None if the server responds or the cause is unknown."""
    host, _, port = config.address.rpartition(":")
    host = host.strip("[]")
    try:
        addresses = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[:MAX_ADDRESSES]
    except (OSError, UnicodeError):
        return Finding("name_not_found", f"{host} doesn't resolve: check the server address and DNS")
    context = _context(config, certificates)  # before connecting: an unusable file isn't a network fault
    found = [_try(family, address, host, config, certificates, context) for family, _, _, _, address in addresses]
    failed = [(progress, finding) for progress, finding in found if finding is not None]
    if len(failed) < len(found):  # one address works, so there is nothing to report
        return None
    return max(failed, key=lambda attempt: attempt[0])[1]


def _try(  # noqa: PLR0913, PLR0917 - what `look` has resolved
    family: int,
    address: tuple[object, ...],
    host: str,
    config: Config,
    certificates: Certificates,
    context: ssl.SSLContext,
) -> tuple[int, Finding | None]:
    """How far the connection got, and why it got no further."""
    where = config.address
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(STEP_SECONDS)
        with connection:
            connection.connect(address)
            return 2, _handshake(connection, host, config, certificates, context)
    except ConnectionRefusedError:
        return 1, Finding(
            "refused", f"nothing listens at {where} (connection refused): check that the server is running"
        )
    except OSError as error:
        why = error.strerror or "no response"
        return 0, Finding("unreachable", f"can't reach {where} ({why}): check the address, routes and firewalls")


def _handshake(
    connection: socket.socket, host: str, config: Config, certificates: Certificates, context: ssl.SSLContext
) -> Finding | None:
    try:
        with context.wrap_socket(connection, server_hostname=host) as secure:
            return _first_answer(secure, config, certificates)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(error, host, config)
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return _own_certificate(error.reason, config, certificates)
        return _not_tls(config)
    except TimeoutError:
        return _silent(config)
    except ConnectionError:
        return _not_tls(config)


def _context(config: Config, certificates: Certificates) -> ssl.SSLContext:
    """Connects as gRPC does: only this CA, this client certificate, HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificates.ca.decode())
    context.set_alpn_protocols(["h2"])
    if isinstance(config.identity, Files):  # OpenSSL loads a certificate only from files
        context.load_cert_chain(config.identity.cert, config.identity.key, password="")
    return context


def _first_answer(secure: ssl.SSLSocket, config: Config, certificates: Certificates) -> Finding | None:
    """Under TLS 1.3 the server checks the client certificate after the client has finished its handshake."""
    try:
        secure.sendall(_PREFACE)
        if secure.recv(1):
            return None
        why = "connection closed"
    except TimeoutError:
        return _silent(config)
    except ssl.SSLError as error:
        why = error.reason or "TLS alert"
    except ConnectionError:
        why = "connection closed"
    return _own_certificate(why, config, certificates)


def _own_certificate(why: str, config: Config, certificates: Certificates) -> Finding | None:
    named = f" {config.identity.cert}" if isinstance(config.identity, Files) else ""
    end = not_after(certificates.cert)
    if end is not None and end <= datetime.now(UTC):
        return Finding(
            "certificate_expired", f"the client certificate{named} expired at {end:%Y-%m-%d %H:%M:%SZ}: renew it"
        )
    if not named:  # the test connection presented none
        return None
    return Finding(
        "certificate_refused",
        f"the server refused the client certificate{named} ({why.lower().replace('_', ' ')}): the server must trust "
        "its CA for clients, and its extended key usage must allow clientAuth",
    )


def _untrusted(error: ssl.SSLCertVerificationError, host: str, config: Config) -> Finding:
    if error.verify_code in _NAME_MISMATCH:
        return Finding(
            "wrong_host_name",
            f"the server's certificate isn't valid for {host}: use a name or address in the certificate, "
            "or have this name added to it",
        )
    if error.verify_code in _NOT_NOW:
        return Finding(
            "server_certificate_expired",
            f"the server's certificate isn't valid now ({error.verify_message}): it must be renewed, "
            "or this machine's clock is wrong",
        )
    ca = config.identity.ca if isinstance(config.identity, Files) else "the agent's bundle"
    return Finding(
        "server_not_trusted",
        f"the server's certificate isn't signed by a CA in {ca} ({error.verify_message}): check that this is the "
        "right server and that the CA is the one its operators gave you",
    )


def _silent(config: Config) -> Finding:
    return Finding("unreachable", f"the server at {config.address} accepted the connection and sent nothing")


def _not_tls(config: Config) -> Finding:
    return Finding("not_tls", f"the service at {config.address} doesn't speak TLS as expected: check the port")


def not_after(pem: bytes) -> datetime | None:
    """When the first certificate in a PEM file expires; None if it can't be parsed. RFC 5280, 4.1."""
    block = re.search(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    try:
        der = ssl.PEM_cert_to_DER_cert(block[0].decode()) if block else b""
        tbs = _elements(_elements(_elements(der)[0][1])[0][1])
        validity = tbs[4 if tbs[0][0] == _VERSION else 3]
        kind, value = _elements(validity[1])[1]
        text = value.decode()
        return datetime.strptime(text if kind == _GENERALIZED_TIME else _century(text), "%Y%m%d%H%M%SZ").replace(
            tzinfo=UTC
        )
    except (IndexError, ValueError):
        return None


_VERSION = 0xA0
_GENERALIZED_TIME = 0x18


def _century(text: str) -> str:
    """Adds the century to a UTCTime, whose year has two digits: 50 to 99 are 19xx."""
    return ("19" if text[:2] >= "50" else "20") + text


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """The tag and content of consecutive elements (X.690)."""
    elements, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        elements.append((tag, der[at : at + length]))
        at += length
    return elements
