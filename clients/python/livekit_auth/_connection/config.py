"""The client's settings: the server's address and the client's identity, from arguments or the environment."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from livekit_auth._messages.errors import ConfigError
from livekit_auth.workload_api import VARIABLE as WORKLOAD_API_VARIABLE
from livekit_auth.workload_api import endpoint_socket

DEFAULT_TIMEOUT = 5.0
"""The default time limit of a call in seconds, including retries."""

_Given = str | os.PathLike[str] | None
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s/:\[\]]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Files:
    """Certificate files."""

    ca: Path
    """PEM file of the CA certificates that may sign the server's certificate."""
    cert: Path
    """PEM file of the client certificate, followed by its intermediates."""
    key: Path
    """PEM file of its private key, unencrypted."""


@dataclass(frozen=True, slots=True)
class FromWorkloadApi:
    """The SPIFFE Workload API."""

    socket: str
    """unix:///PATH of the agent."""
    server_trust_domain: str | None
    """The trust domain whose CAs may sign the server's certificate; None means the client's own."""
    patience: float
    """How long to wait for the first SVID, in seconds."""


@dataclass(frozen=True, slots=True)
class Config:
    """The complete settings of a client. Create one with `resolve`."""

    address: str
    """HOST:PORT of the server."""
    identity: Files | FromWorkloadApi
    """Where the client certificate and the server's CA come from."""
    timeout: float
    """The time limit of a call in seconds, including retries."""

    @classmethod
    def resolve(  # noqa: PLR0913 - the client's arguments
        cls,
        address: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        workload_api: str | None = None,
        server_trust_domain: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Config:
        """Takes missing values from LIVEKIT_AUTH_ADDRESS, _CA, _CERT and _KEY, or SPIFFE_ENDPOINT_SOCKET.

        Raises ConfigError.
        """
        server, patience = _address(address), check_timeout(timeout)
        files = {"ca": ca, "cert": cert, "key": key}
        if workload_api and any(files.values()):
            raise ConfigError("workload_api replaces ca, cert and key: pass either workload_api or the files")
        if workload_api or not (any(files.values()) or _any_file_named()):
            named = workload_api or os.environ.get(WORKLOAD_API_VARIABLE)
            if named:
                api = FromWorkloadApi(endpoint_socket(named), server_trust_domain, patience)
                return cls(server, api, patience)
        if server_trust_domain is not None:
            raise ConfigError("server_trust_domain needs workload_api: with files, ca says which CA is trusted")
        return cls(server, _files(**files), patience)


def _files(ca: _Given, cert: _Given, key: _Given) -> Files:
    return Files(
        ca=_path("ca", ca, "the CA that signs the server's certificate"),
        cert=_path("cert", cert, "the client certificate"),
        key=_path("key", key, "the client certificate's private key"),
    )


def _any_file_named() -> bool:
    return any(os.environ.get(f"LIVEKIT_AUTH_{name}") for name in ("CA", "CERT", "KEY"))


def check_timeout(timeout: float) -> float:
    """Returns the timeout, in seconds, unchanged. Raises ConfigError unless it is finite and above zero."""
    if not (math.isfinite(timeout) and timeout > 0):
        raise ConfigError(f"timeout must be a number of seconds above zero, not {timeout!r}")
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
        raise ConfigError(
            f"no {argument}: set {variable} to the PEM file of {meaning}, or pass {argument}; "
            f"with a SPIFFE agent, set {WORKLOAD_API_VARIABLE} instead of the files"
        )
    return Path(value)
