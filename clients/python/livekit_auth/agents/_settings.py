"""What a worker is told, in a form that reaches its job processes; and the refusal of any LiveKit secret."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth._async.client import AuthClient
from livekit_auth._connection.config import SECRET_VARIABLES
from livekit_auth._messages.errors import ConfigError
from livekit_auth._sync.client import AuthClient as SyncAuthClient

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Pickled into every job process: names and paths, never a key, a secret or a token.

    What is None is taken from the environment, in the process that connects.
    """

    role: str
    api_role: str | None
    inference_role: str | None = None
    observability_role: str | None = None
    project: str
    address: str | None
    ca: str | None
    cert: str | None
    key: str | None

    def client(self) -> AuthClient:
        """A client with the worker's certificate. Waits for the first SVID of a SPIFFE agent. Raises ConfigError."""
        return AuthClient(self.address, ca=self.ca, cert=self.cert, key=self.key)

    def sync_client(self) -> SyncAuthClient:
        """The same for threads."""
        return SyncAuthClient(self.address, ca=self.ca, cert=self.cert, key=self.key)


def refuse_secrets(options: Mapping[str, object]) -> None:
    """Raises ConfigError when a LiveKit secret is given or stands in the environment."""
    if options.get("api_secret") or options.get("api_key"):
        raise ConfigError("this worker holds no API key or secret: leave api_key and api_secret out")
    for variable in SECRET_VARIABLES:
        if os.environ.get(variable):
            raise ConfigError(
                f"{variable} is set: this worker gets its tokens from livekit-auth and must not hold a secret. "
                "Take it out of the worker's environment and of .env files"
            )
