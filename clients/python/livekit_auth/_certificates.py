"""The client's certificate files, and noticing that they were renewed.

What this hands out is always a set that fits together: the key belongs to the certificate, the CA file holds
certificates, and no file changed while they were read. A set that is only half written is left for the next look.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livekit_auth._config import Config

POLL_SECONDS = 1.0
"""How often the files are looked at, at most."""

_log = logging.getLogger("livekit_auth")

_State = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM bytes that fit together."""

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)


class CertificateFiles:
    """Reads the three files, and reads them again when they have changed. Not thread-safe: its owner holds a lock."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the files. Raises ConfigError when they can't be read or don't fit together."""
        self._config = config
        self._clock = clock
        self._looked_at = clock()
        self._seen = self._state()
        self.current = self._load(self._seen)

    def renewed(self) -> bool:
        """Whether `current` was replaced by a newer set just now. Looks at most once in POLL_SECONDS; never raises."""
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
            _log.warning("Keeping the certificate read before: %s", error)
            return False
        self._seen = state
        return True

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._config.ca, self._config.cert, self._config.key

    def _state(self) -> _State:
        """What tells one version of the files from another; symbolic links are followed, so a swapped link shows."""
        return tuple(_stat(path) for path in self._paths())

    def _load(self, state: _State) -> Certificates:
        ca, cert, key = (_read(path) for path in self._paths())
        self._check()
        if self._state() != state:
            raise ConfigError(f"the certificate files changed while they were read: {self._config.cert}")
        return Certificates(ca=ca, cert=cert, key=key)

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # An empty password makes an encrypted key an error; without one OpenSSL would ask at the terminal.
            context.load_cert_chain(self._config.cert, self._config.key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the certificate {self._config.cert} and the key {self._config.key} can't be used together: both must "
                f"be PEM, of one pair, and the key not encrypted ({_reason(error)})"
            ) from error
        try:
            context.load_verify_locations(self._config.ca)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the CA file {self._config.ca} holds no certificate in PEM ({_reason(error)})"
            ) from error


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
