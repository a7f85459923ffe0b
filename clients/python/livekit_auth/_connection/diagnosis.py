"""Why there is no connection to the server: a test connection of its own, since gRPC's errors don't tell.

gRPC names one of several addresses at random, and a client certificate refused under TLS 1.3 looks to it like any lost
connection. So when a call fails without a word from the server, a thread connects once by Python's own `ssl`, while the
call is being retried: no call takes longer for it. Nothing is sent but a TLS handshake, as gRPC makes it, and the empty
beginning of HTTP/2; at most one test connection in PAUSE_SECONDS, each bounded in time.
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
"""From the end of a test connection to the next, and how long later calls believe what it found."""
STEP_SECONDS = 2.0
"""How long connecting to an address, and each answer, may take."""
MAX_ADDRESSES = 4

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # RFC 9113, 3.4: with empty SETTINGS
_NAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


class Diagnosis:
    """Looks for the cause in the background; safe to use from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._flight = SingleFlight()
        self._certificates: Certificates | None = None
        self._looked_at = -math.inf
        self._found: Finding | None = None

    def begin(self, certificates: Certificates) -> None:
        """Starts a test connection, unless one is under way or was made just now. Never waits."""
        if time.monotonic() - self._looked_at >= PAUSE_SECONDS and not any(map(_variable, _PROXIES)):
            self._certificates = certificates
            self._flight.start(self._look)

    def finding(self, began: float) -> Finding | None:
        """What the last test connection found, unless it was long before that call began (time.monotonic)."""
        return self._found if self._looked_at >= began - PAUSE_SECONDS else None

    def _look(self) -> None:
        certificates = self._certificates
        if certificates is None or time.monotonic() - self._looked_at < PAUSE_SECONDS:
            return
        try:
            self._found = look(self._config, certificates)
        except (OSError, ValueError):  # certificate files half replaced, for one: gRPC's own account must do
            self._found = None
        self._looked_at = time.monotonic()


def _variable(name: str) -> str | None:
    return os.environ.get(name) or os.environ.get(name.upper())


def look(config: Config, certificates: Certificates) -> Finding | None:
    """Connects to the server's addresses in turn. None where the server answers, or the cause isn't known."""
    host, _, port = config.address.rpartition(":")
    host = host.strip("[]")
    try:
        addresses = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[:MAX_ADDRESSES]
    except (OSError, UnicodeError):
        return Finding("name_not_found", f"no address is known for {host}: check the server address, and DNS")
    context = _context(config, certificates)  # apart from connecting: a file that can't be used isn't the network
    found = [_try(family, address, host, config, certificates, context) for family, _, _, _, address in addresses]
    # The address that the connection got furthest with tells most; one that works leaves nothing to tell.
    return None if None in found else max((f for f in found if f), key=lambda f: _DEPTH.get(f.cause, len(_DEPTH)))


_DEPTH = {"unreachable": 0, "refused": 1}


def _try(  # noqa: PLR0913, PLR0917 - what look knows
    family: int,
    address: tuple[object, ...],
    host: str,
    config: Config,
    certificates: Certificates,
    context: ssl.SSLContext,
) -> Finding | None:
    where = config.address
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(STEP_SECONDS)
        with connection:
            connection.connect(address)
            return _handshake(connection, host, config, certificates, context)
    except ConnectionRefusedError:
        return Finding("refused", f"nothing listens at {where} (connection refused): check that the server runs there")
    except OSError as error:
        why = error.strerror or "no answer"
        return Finding("unreachable", f"{where} can't be reached ({why}): check the address, routes and firewalls")


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
    except (ConnectionError, TimeoutError):
        return _not_tls(config)


def _context(config: Config, certificates: Certificates) -> ssl.SSLContext:
    """As gRPC connects: this CA and no other, this client certificate, HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificates.ca.decode())
    context.set_alpn_protocols(["h2"])
    if isinstance(config.identity, Files):  # OpenSSL takes a certificate from files only
        context.load_cert_chain(config.identity.cert, config.identity.key, password="")
    return context


def _first_answer(secure: ssl.SSLSocket, config: Config, certificates: Certificates) -> Finding | None:
    """Under TLS 1.3 the server looks at the client certificate after the handshake has ended for the client."""
    try:
        secure.sendall(_PREFACE)
        if secure.recv(1):
            return None
        why = "connection closed"
    except TimeoutError:
        return Finding("unreachable", f"the server at {config.address} accepts the connection and doesn't answer")
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
    if not named:  # the test connection showed none
        return None
    return Finding(
        "certificate_refused",
        f"the server refused the client certificate{named} ({why.lower().replace('_', ' ')}): its CA must be one that "
        "the server trusts for clients, and its usage must allow clientAuth",
    )


def _untrusted(error: ssl.SSLCertVerificationError, host: str, config: Config) -> Finding:
    if error.verify_code in _NAME_MISMATCH:
        return Finding(
            "wrong_host_name",
            f"the server's certificate isn't for {host}: use a name or address that it is for, "
            "or have that name added to it",
        )
    if error.verify_code in _NOT_NOW:
        return Finding(
            "server_certificate_expired",
            f"the server's certificate can't be used now ({error.verify_message}): it must be renewed, "
            "or this machine's clock is wrong",
        )
    ca = config.identity.ca if isinstance(config.identity, Files) else "the agent's bundle"
    return Finding(
        "server_not_trusted",
        f"the server's certificate isn't signed by a CA in {ca} ({error.verify_message}): check that this is the "
        "right server, and the CA that its operators gave you",
    )


def _not_tls(config: Config) -> Finding:
    return Finding("not_tls", f"what answers at {config.address} doesn't speak TLS as the server does: check the port")


def not_after(pem: bytes) -> datetime | None:
    """When the first certificate of a PEM file expires; None if that can't be read. RFC 5280, 4.1."""
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
    """UTCTime has two digits for the year: 50 to 99 are 19xx."""
    return ("19" if text[:2] >= "50" else "20") + text


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """The tag and content of each element in a row (X.690)."""
    elements, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        elements.append((tag, der[at : at + length]))
        at += length
    return elements
