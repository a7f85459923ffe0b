"""Which failures are worth another attempt, and when it is made.

A call uses the whole of its time: after a failure it waits for the connection instead of failing without one, pauses
are short, and the last attempt is kept for the end.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import AuthError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

CHANCE = random.SystemRandom()
"""Spreads what many clients do. Of the system's, since processes forked from one would draw the same from Python's."""
LAST_ATTEMPT_SECONDS = 0.5
"""What is kept of a call's time for its last attempt; of a short one a fifth."""
MAX_RETRY_AFTER_SECONDS = 3_600.0
"""The longest that a server can keep a source of tokens from asking again."""


def backoff(state: RetryCallState) -> float:
    """Seconds before another attempt, with full jitter: up to 0.1 before the second one, doubling to 1."""
    return CHANCE.uniform(0, min(0.1 * 2.0 ** min(state.attempt_number - 1, 10), 1.0))


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed.

    UNAVAILABLE, and CANCELLED, which a restarting server or a proxy sends; a caller's own cancellation is never an
    AuthError. A deadline that has passed leaves no time, and a limit (RATE_LIMITED) is the caller's to wait for.
    """
    return isinstance(error, Unavailable) and error.code in {"UNAVAILABLE", "CANCELLED"}


class Attempts:
    """The attempts of one call, within its time."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self._end = self.began + seconds
        self._reserve = min(LAST_ATTEMPT_SECONDS, seconds / 5)
        self._failure: AuthError | None = None

    @property
    def left(self) -> float:
        """What is left of the call's time, in seconds."""
        return max(self._end - self._clock(), 0.0)

    @property
    def again(self) -> bool:
        """Whether an attempt has failed: the next one waits for a connection, for as long as there is time."""
        return self._failure is not None

    def failed(self, error: AuthError) -> AuthError:
        """What an attempt's failure means: one that only ran out of time says less than the one before it."""
        if error.code == "DEADLINE_EXCEEDED" and self._failure is not None:
            return self._failure
        self._failure = error
        return error

    def pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt; not less than the server asks for."""
        if self._failure is not None and self._failure.retry_after is not None:
            return max(backoff(state), self._failure.retry_after.total_seconds())
        return min(backoff(state), max(self.left - self._reserve, 0.0))

    def over(self, state: RetryCallState) -> bool:
        """Whether the last attempt has been made, or the server's wait leaves no time for another."""
        return self.left <= max(self._reserve, state.upcoming_sleep)
