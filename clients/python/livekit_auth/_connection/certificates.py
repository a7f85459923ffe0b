"""Loads the client's certificates from files or the SPIFFE Workload API, and detects renewals.

The certificates it returns always belong together: the key matches the certificate, the CAs are certificates, and no
file changed while they were read. A set that is only half written is read again at the next check.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from livekit_auth._connection.config import Files
from livekit_auth._messages.errors import ConfigError
from livekit_auth._process import grpc_after_fork
from livekit_auth.workload_api import WorkloadApi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livekit_auth._connection.config import Config, FromWorkloadApi
    from livekit_auth.workload_api import Issued

POLL_SECONDS = 1.0
"""The shortest time between two checks of the files."""

_log = logging.getLogger("livekit_auth")

_State = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM bytes that belong together."""

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)


class Source(Protocol):
    """A source of certificates. Not thread-safe: its owner holds a lock."""

    current: Certificates

    def renewed(self) -> bool:
        """Whether this call replaced `current` by a newer set. Never raises, never waits."""

    def close(self) -> None:
        """Stops looking for renewals."""


def open_source(config: Config) -> Source:
    """Opens the source that the settings name. Raises ConfigError if it can't be used."""
    if isinstance(config.identity, Files):
        return CertificateFiles(config.identity)
    return WorkloadCertificates(config.identity)


class WorkloadCertificates:
    """The SVID and the bundle that the SPIFFE Workload API sent last."""

    def __init__(self, wanted: FromWorkloadApi, api: WorkloadApi | None = None) -> None:
        """Waits for the first SVID. Raises ConfigError if none arrives in time or the server has no bundle."""
        self._wanted = wanted
        grpc_after_fork.opened()
        self._api = api or WorkloadApi(wanted.socket)
        try:
            self._seen = self._api.first(wanted.patience)
            self.current = self._certificates(self._seen)
        except BaseException:
            self._api.close()
            raise

    def renewed(self) -> bool:
        """Whether this call replaced `current` by a newer set. Never waits, never raises."""
        issued, _ = self._api.state
        if issued is None or issued is self._seen:
            return False
        self._seen = issued
        try:
            newest = self._certificates(issued)
        except ConfigError as error:
            _log.warning("Renewed SVID can't be used; keeping the previous one: %s", error)
            return False
        changed = newest != self.current
        self.current = newest
        return changed

    def close(self) -> None:
        """Closes the stream from the agent."""
        self._api.close()

    def _certificates(self, issued: Issued) -> Certificates:
        domain = self._wanted.server_trust_domain or issued.svid.trust_domain
        ca = issued.bundles.get(domain)
        if not ca:
            raise ConfigError(
                f"the agent has no bundle for the server's trust domain {domain}, only for "
                f"{', '.join(sorted(issued.bundles))}: make this workload's entry federate with it"
            )
        return Certificates(ca=ca, cert=issued.svid.certificate, key=issued.svid.key)


class CertificateFiles:
    """Reads the three files, and rereads them when they change. Not thread-safe: its owner holds a lock."""

    def __init__(self, files: Files, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the files. Raises ConfigError if they can't be read or don't belong together."""
        self._files = files
        self._clock = clock
        self._looked_at = clock()
        self._seen = self._state()
        self.current = self._load(self._seen)

    def renewed(self) -> bool:
        """Whether this call replaced `current` by a newer set. Checks at most once per POLL_SECONDS; never raises."""
        now = self._clock()
        if now - self._looked_at < POLL_SECONDS:
            return False
        self._looked_at = now
        try:
            state = self._state()
            if state == self._seen:
                return False
            self.current = self._load(state)
        except ConfigError as error:
            _log.warning("Changed certificate files can't be used; keeping the previous ones: %s", error)
            return False
        self._seen = state
        return True

    def close(self) -> None:
        """Does nothing: no file stays open."""

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._files.ca, self._files.cert, self._files.key

    def _state(self) -> _State:
        """Identifies a version of the files. Follows symbolic links, so a swapped link is a new version."""
        return tuple(_stat(path) for path in self._paths())

    def _load(self, state: _State) -> Certificates:
        ca, cert, key = (_read(path) for path in self._paths())
        self._check()
        if self._state() != state:
            raise ConfigError(f"the certificate files changed while they were read: {self._files.cert}")
        return Certificates(ca=ca, cert=cert, key=key)

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # With an empty password an encrypted key is an error; without one OpenSSL would prompt on the terminal.
            context.load_cert_chain(self._files.cert, self._files.key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the certificate {self._files.cert} and the key {self._files.key} can't be used together: both must "
                f"be PEM, the key must match the certificate and be unencrypted ({_reason(error)})"
            ) from error
        try:
            context.load_verify_locations(self._files.ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the CA file {self._files.ca} contains no PEM certificate ({_reason(error)})") from error


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read {path}: {_reason(error)}") from error
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "empty or malformed"
