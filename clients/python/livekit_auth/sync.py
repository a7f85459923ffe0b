"""The client for threads: `AuthClient` and `TokenSource` without `await`. Both may be shared among threads.

Requests, results and errors are the same as in `livekit_auth`.
"""

from livekit_auth._sync.client import AuthClient
from livekit_auth._sync.token_source import TokenSource

__all__ = ["AuthClient", "TokenSource"]
