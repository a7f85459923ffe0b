"""Where the server is and which certificate files to show it: from arguments, else from the environment."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from livekit_auth._errors import ConfigError

DEFAULT_TIMEOUT = 5.0
"""How long a call may take, retries included, in seconds."""

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s/:\[\]]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Config:
    """A client's settings, complete. Make one with `resolve`."""

    address: str
    """HOST:PORT of the server."""
    ca: Path
    """The PEM file of the CA certificates that may sign the server's certificate."""
    cert: Path
    """The PEM file of the client's certificate, intermediates after it."""
    key: Path
    """The PEM file of its private key, not encrypted."""
    timeout: float
    """How long a call may take, retries included, in seconds."""

    @classmethod
    def resolve(
        cls,
        address: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Config:
        """Fills what isn't given from LIVEKIT_AUTH_ADDRESS, _CA, _CERT and _KEY. Raises ConfigError."""
        return cls(
            address=_address(address),
            ca=_path("ca", ca, "the CA that signs the server's certificate"),
            cert=_path("cert", cert, "the client certificate"),
            key=_path("key", key, "the client certificate's private key"),
            timeout=check_timeout(timeout),
        )


def check_timeout(timeout: float) -> float:
    """Returns a timeout in seconds as it is. Raises ConfigError unless it is finite and above zero."""
    if not (math.isfinite(timeout) and timeout > 0):
        raise ConfigError(f"a timeout is a number of seconds above zero, not {timeout!r}")
    return timeout


def _address(given: str | None) -> str:
    address = given or os.environ.get("LIVEKIT_AUTH_ADDRESS", "")
    if not address:
        raise ConfigError("no server address: set LIVEKIT_AUTH_ADDRESS to HOST:PORT, or pass address")
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"the server address must be HOST:PORT without a scheme, not {address!r}")
    return address


def _path(argument: str, given: str | os.PathLike[str] | None, meaning: str) -> Path:
    variable = f"LIVEKIT_AUTH_{argument.upper()}"
    value = given or os.environ.get(variable, "")
    if not value:
        raise ConfigError(f"no {argument}: set {variable} to the PEM file of {meaning}, or pass {argument}")
    return Path(value)
