"""The settings of a worker, which its job processes get too; and the refusal of any LiveKit secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth._async.client import AuthClient
from livekit_auth._messages.errors import ConfigError
from livekit_auth._sync.client import AuthClient as SyncAuthClient
from livekit_auth._workers import secrets

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Pickled into every job process: names and paths, never a key, a secret or a token.

    A value of None is taken from the environment of the process that connects.
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
        """A client for asyncio. With a SPIFFE agent, waits for the first SVID. Raises ConfigError."""
        return AuthClient(self.address, ca=self.ca, cert=self.cert, key=self.key)

    def sync_client(self) -> SyncAuthClient:
        """A client for threads."""
        return SyncAuthClient(self.address, ca=self.ca, cert=self.cert, key=self.key)


def refuse_secrets(options: Mapping[str, object]) -> None:
    """Raises ConfigError if a LiveKit secret is in the options or in the environment."""
    if options.get("api_secret") or options.get("api_key"):
        raise ConfigError("this worker needs no API key or secret: omit api_key and api_secret")
    secrets.refuse_secrets(
        "this worker gets its tokens from livekit-auth and must not hold a secret. "
        "Remove it from the worker's environment and from .env files"
    )
