"""The connection to Redis: TLS that is checked, a password that is read from its file, no retries of the library's."""

from __future__ import annotations

from dataclasses import dataclass
from ssl import TLSVersion
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from livekit_auth_server.adapters.redis_link import CONNECTIONS
from livekit_auth_server.adapters.yaml_file import ConfigError, read_private

if TYPE_CHECKING:
    from pathlib import Path

_CONNECT_TIMEOUT = 1.0  # seconds; only the link's probe waits so long


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The CAs that sign Redis' certificate (None: the system's), and this server's own certificate and key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


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
        options |= {"connection_class": SSLConnection, **_tls_options(tls)}
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


def _tls_options(tls: TlsFiles) -> dict[str, Any]:
    if tls.key is not None:
        read_private(tls.key)
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_min_version": TLSVersion.TLSv1_2,
        "ssl_ca_certs": str(tls.ca) if tls.ca else None,
        "ssl_certfile": str(tls.certificate) if tls.certificate else None,
        "ssl_keyfile": str(tls.key) if tls.key else None,
    }
