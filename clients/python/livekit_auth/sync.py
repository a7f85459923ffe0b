"""The client for threads: the same `AuthClient` and `TokenSource` without `await`, both safe to share among threads.

Requests, results and errors are those of `livekit_auth`.
"""

from livekit_auth._sync.client import AuthClient
from livekit_auth._sync.token_source import TokenSource

__all__ = ["AuthClient", "TokenSource"]
