"""Python client of livekit-auth: LiveKit access tokens and webhook checks without holding an API secret.

`AuthClient` and `TokenSource` are for asyncio; `livekit_auth.sync` has the same classes for threads. The messages of
the contract (`Grants`, `RoomConfig` and their parts) are in `livekit_auth.v1`.

Names are imported on first use, so that the server, which needs only `livekit_auth.v1`, doesn't load the client.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livekit_auth._async.client import AuthClient
    from livekit_auth._async.token_source import TokenSource
    from livekit_auth._messages.decision import Decision, EntryShortfall, Lack
    from livekit_auth._messages.errors import (
        AuthError,
        ConfigError,
        Denied,
        InvalidRequest,
        NotConnected,
        NotFound,
        RateLimited,
        ServerError,
        ServerTooOld,
        Unauthenticated,
        Unavailable,
        VerificationFailed,
        Violation,
    )
    from livekit_auth._messages.permissions import AllowEntry, Caller, Matcher, Project, Role
    from livekit_auth._messages.requests import TokenRequest
    from livekit_auth._messages.results import IssuedToken, VerifiedToken
    from livekit_auth._messages.server_info import ServerInfo
    from livekit_auth._messages.webhook import VerifiedWebhook

__all__ = [
    "AllowEntry",
    "AuthClient",
    "AuthError",
    "Caller",
    "ConfigError",
    "Decision",
    "Denied",
    "EntryShortfall",
    "InvalidRequest",
    "IssuedToken",
    "Lack",
    "Matcher",
    "NotConnected",
    "NotFound",
    "Project",
    "RateLimited",
    "Role",
    "ServerError",
    "ServerInfo",
    "ServerTooOld",
    "TokenRequest",
    "TokenSource",
    "Unauthenticated",
    "Unavailable",
    "VerificationFailed",
    "VerifiedToken",
    "VerifiedWebhook",
    "Violation",
]

_HOMES = {
    "AuthClient": "_async.client",
    "ServerInfo": "_messages.server_info",
    "TokenRequest": "_messages.requests",
    "TokenSource": "_async.token_source",
    "VerifiedWebhook": "_messages.webhook",
    **dict.fromkeys(("Decision", "EntryShortfall", "Lack"), "_messages.decision"),
    **dict.fromkeys(("AllowEntry", "Caller", "Matcher", "Project", "Role"), "_messages.permissions"),
    **dict.fromkeys(("IssuedToken", "VerifiedToken"), "_messages.results"),
}


def __getattr__(name: str) -> object:
    """Imports a public name from its private module on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, '_messages.errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
