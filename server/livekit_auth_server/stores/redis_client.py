"""The connection to Redis: TLS that is checked, a password that is read from its file, no retries of the library's.

Password and TLS files are read for each new connection, so that renewals need no restart. TLS files that can't be used,
such as a pair of which one half is replaced, leave the last good ones in force.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private
from livekit_auth_server.stores.redis_link import CONNECTIONS

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger("livekit_auth_server")
_CONNECT_TIMEOUT = 1.0  # seconds; only the link's probe waits so long


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The CAs that sign Redis' certificate (None: the system's), and this server's own certificate and key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class TlsContexts:
    """The context for the next connection, from the files as they are then."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError for files that can't be used."""
        self._files, self._failure = files, ""
        self._digest = _digest(files)
        self._good = _context(files)

    def get(self) -> ssl.SSLContext:
        """A new one when the files have changed; the last good one, with a warning, when they can't be used."""
        try:
            digest = _digest(self._files)
            if digest != self._digest:
                self._good = _context(self._files)
                self._digest = digest
        except ConfigError as error:
            if str(error) != self._failure:
                _log.warning("Redis TLS files can't be used; the last good ones stay in force", error=str(error))
            self._failure = str(error)
        else:
            self._failure = ""
        return self._good


def _digest(files: TlsFiles) -> bytes:
    """Of what the files hold. Raises ConfigError."""
    contents = [read_bytes(path) for path in (files.ca, files.certificate) if path is not None]
    if files.key is not None:
        contents.append(read_private(files.key))
    return sha256(b"".join(sha256(content).digest() for content in contents)).digest()


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Raises ConfigError."""
    try:
        # Where a CA is given, no other counts.
        context = ssl.create_default_context(cafile=str(files.ca) if files.ca else None)
    except OSError as error:  # an SSLError is one
        raise ConfigError(files.ca or "redis", f"can't be used as CA certificates: {_words(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.certificate is not None and files.key is not None:
        try:
            context.load_cert_chain(str(files.certificate), str(files.key), password=_no_password)
        except OSError as error:
            message = f"can't be used with {files.key.name}: {_words(error)}"
            raise ConfigError(files.certificate, message) from None
    return context


def _no_password() -> str:
    """Asked for the password of an encrypted key; without this OpenSSL would ask the terminal."""
    raise ssl.SSLError(0, "the key is encrypted")


def _words(error: OSError) -> str:
    """What is wrong: OpenSSL's own words, or the system's."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


class RenewedTls(SSLConnection):
    """A connection that asks for its TLS context whenever it connects."""

    def __init__(self, *, contexts: TlsContexts, **options: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__(**options)
        self.ssl_context = contexts  # type: ignore[assignment]  # of the library's own, which keeps one, only get is used


class PasswordFile(CredentialProvider):
    """Reads the password at every new connection, so that a new one needs no restart."""

    def __init__(self, user: str, path: Path) -> None:
        self._user, self._path = user, path

    def read(self) -> str:
        """The password. Raises ConfigError when there is none or others can read the file."""
        content = read_private(self._path)
        try:
            password = content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(self._path, "isn't UTF-8 text") from None
        if not password or not password.isprintable():
            raise ConfigError(self._path, "should hold the password in one line and nothing else")
        return password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What AUTH takes."""
        try:
            password = self.read()
        except ConfigError as error:
            raise AuthenticationError(str(error)) from None
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """What AUTH takes."""
        return self.get_credentials()


def new_client(url: str, password_file: Path | None, tls: TlsFiles) -> Redis:
    """A client that hasn't connected yet. Raises ConfigError for a file that can't be used."""
    parts = urlsplit(url)
    options: dict[str, Any] = {}
    if password_file is not None:
        credentials = PasswordFile(parts.username or "", password_file)
        credentials.read()
        options["credential_provider"] = credentials
    elif parts.username:
        options["username"] = parts.username
    if parts.scheme == "unix":
        options |= {"connection_class": UnixDomainSocketConnection, "path": parts.path}
    else:
        database = int(parts.path.strip("/") or 0)
        options |= {"host": parts.hostname, "port": parts.port or 6379, "db": database, "connection_class": Connection}
    if parts.scheme == "rediss":
        options |= {"connection_class": RenewedTls, "contexts": TlsContexts(tls)}
    pool = BlockingConnectionPool(
        max_connections=CONNECTIONS,
        timeout=_CONNECT_TIMEOUT,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        socket_timeout=_CONNECT_TIMEOUT,
        socket_keepalive=parts.scheme != "unix",
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
        **options,
    )
    client = Redis.from_pool(pool)
    client.response_callbacks.clear()  # answers stay as they come, whatever they are: who asked checks them
    return client
