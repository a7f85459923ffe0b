"""The tokens for all jobs of a process: one client, which never blocks an event loop.

The client is opened and used in its own threads, because opening it may wait for the first SVID of a SPIFFE agent. It
is opened when the first token is requested.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from livekit_auth._connection.retry import CHANCE
from livekit_auth._messages.errors import AuthError, ConfigError
from livekit_auth._messages.requests import TokenRequest
from livekit_auth._sync.token_source import TokenSource

if TYPE_CHECKING:
    from livekit_auth._messages.results import IssuedToken
    from livekit_auth._sync.client import AuthClient
    from livekit_auth.agents._settings import Settings

_log = logging.getLogger("livekit_auth")

THREADS = 8
"""The most concurrent calls of a process to the server."""
LOOK_SECONDS = 2.0
"""How often a kept token is checked. Renewals are due at least a sixth of the lifetime before the expiry."""
MAX_PAUSE_SECONDS = 30.0
"""The longest pause between requests while there is no token."""
INFERENCE_IDENTITY = "agent"
"""The identity in livekit-agents' own tokens for LiveKit Inference."""

_lock = threading.Lock()
_of_this_process: dict[Settings, ProcessTokens] = {}


def process_tokens(settings: Settings) -> ProcessTokens:
    """The tokens of this process for the settings of a worker. Always returns the same object."""
    with _lock:
        if settings not in _of_this_process:
            _of_this_process[settings] = ProcessTokens(settings)
        return _of_this_process[settings]


class ProcessTokens:
    """Issues the tokens of one process with one client. Safe to use from any thread and event loop."""

    def __init__(self, settings: Settings) -> None:
        """Opens nothing yet."""
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="livekit-auth")
        self._opening = threading.Lock()
        self._client: AuthClient | None = None
        self.inference = KeptToken(self.source(settings.inference_role, identity=INFERENCE_IDENTITY))
        self.observability = self.source(settings.observability_role)

    def source(self, role: str | None, *, room: str = "", identity: str = "") -> WaitingSource:
        """A self-renewing token of a role. Requests nothing yet."""
        request = TokenRequest(role=role, room=room, identity=identity, project=self._settings.project)
        return WaitingSource(TokenSource(self, request), self._threads)

    def issue(self, request: TokenRequest) -> IssuedToken:
        """Issues one token. Blocks: don't call this on an event loop. Raises AuthError, ConfigError."""
        with self._opening:
            if self._client is None:
                self._client = self._settings.sync_client()
        return self._client.issue(request)


class WaitingSource:
    """A self-renewing token, for event loops and threads."""

    def __init__(self, source: TokenSource, threads: ThreadPoolExecutor) -> None:
        self._source = source
        self._threads = threads

    async def token(self) -> IssuedToken:
        """Returns a valid token without blocking the event loop. Raises AuthError, ConfigError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._source.token)

    def wait(self) -> IssuedToken:
        """Returns a valid token. Blocks. Raises AuthError, ConfigError."""
        return self._source.token()

    def valid(self) -> bool:
        """Whether there is an unexpired token. Never waits."""
        return self._source._valid() is not None  # noqa: SLF001 - of this package


class KeptToken:
    """A token that is available immediately, for code that can't wait. Once started, a thread keeps it valid."""

    def __init__(self, source: WaitingSource) -> None:
        """Requests nothing yet."""
        self._source = source
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answered = threading.Event()
        self._answer: IssuedToken | AuthError | ConfigError | None = None

    def start(self) -> None:
        """Starts the thread, unless it is running."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep, name="livekit-auth-kept-token", daemon=True)
                self._thread.start()

    async def ready(self, seconds: float) -> None:
        """Starts the thread and waits for the first result, token or error, for at most this time."""
        self.start()
        await asyncio.to_thread(self._answered.wait, seconds)

    def now(self) -> IssuedToken | AuthError | ConfigError | None:
        """The token, or why there is none; None if the first result is pending. Never waits."""
        self.start()
        answer = self._answer
        if answer is None or isinstance(answer, AuthError | ConfigError) or self._source.valid():
            return answer
        return None  # it has expired, and its renewal is in progress

    def _keep(self) -> None:
        failures = 0
        while True:
            try:
                self._answer = self._source.wait()
            except (AuthError, ConfigError) as error:
                self._answer, failures = error, failures + 1
            except Exception:  # noqa: BLE001 - the thread must survive
                _log.exception("unexpected error while renewing the token of this process")
                self._answer, failures = None, failures + 1
            else:
                failures = 0
            self._answered.set()
            threading.Event().wait(self._pause(failures))

    def _pause(self, failures: int) -> float:
        if not failures:
            return LOOK_SECONDS
        pause = CHANCE.uniform(0.5, 1.0) * min(2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)
        told = self._answer.retry_after if isinstance(self._answer, AuthError) else None
        return max(pause, told.total_seconds()) if told else pause
