"""Which failures are retried, and when.

A call uses all of its time: after a failure it waits for the connection instead of failing without one, pauses are
short, and some time is reserved for a last attempt.
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
"""Jitter. From the system's generator: forked processes would draw the same numbers from Python's."""
LAST_ATTEMPT_SECONDS = 0.5
"""The time reserved for a call's last attempt; for a short call, a fifth of its time."""
MAX_RETRY_AFTER_SECONDS = 3_600.0
"""The longest time that a server can make a token source wait before its next request."""


def backoff(state: RetryCallState) -> float:
    """Seconds before the next attempt, with full jitter: up to 0.1 before the second, doubling up to 1."""
    return CHANCE.uniform(0, min(0.1 * 2.0 ** min(state.attempt_number - 1, 10), 1.0))


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: after UNAVAILABLE, and after CANCELLED.

    A restarting server or a proxy sends CANCELLED; a caller's own cancellation is never an AuthError. After an expired
    deadline no time is left, and waiting for a limit (RATE_LIMITED) is left to the caller.
    """
    return isinstance(error, Unavailable) and error.code in {"UNAVAILABLE", "CANCELLED"}


class Attempts:
    """The attempts of one call, within its time limit."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self._end = self.began + seconds
        self._reserve = min(LAST_ATTEMPT_SECONDS, seconds / 5)
        self._failure: AuthError | None = None

    @property
    def left(self) -> float:
        """The remaining time of the call, in seconds."""
        return max(self._end - self._clock(), 0.0)

    @property
    def again(self) -> bool:
        """Whether an attempt has failed. The next one then waits for a connection as long as time is left."""
        return self._failure is not None

    def failed(self, error: AuthError) -> AuthError:
        """Records a failure and returns the one to report: the previous one if this attempt only ran out of time.

        A permanent one is the call's last, and isn't recorded: a list that is begun again goes on with these attempts.
        """
        if error.code == "DEADLINE_EXCEEDED" and self._failure is not None:
            return self._failure
        if is_transient(error):
            self._failure = error
        return error

    def pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: as long as the server asks for, and then the backoff."""
        if self._failure is not None and self._failure.retry_after is not None:
            return self._failure.retry_after.total_seconds() + backoff(state)
        return min(backoff(state), max(self.left - self._reserve, 0.0))

    def over(self, state: RetryCallState) -> bool:
        """Whether the last attempt was made, or the wait that the server asks for leaves no time for another."""
        return self.left <= max(self._reserve, state.upcoming_sleep)
