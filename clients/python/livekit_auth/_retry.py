"""Which failures are worth another attempt, and how long to wait before it."""

from __future__ import annotations

from tenacity import wait_random_exponential

from livekit_auth._errors import Unavailable

BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)
"""Exponential with full jitter: up to 0.1 s before the second attempt, doubling to 2 s. In seconds."""


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed.

    UNAVAILABLE, and CANCELLED, which a restarting server or a proxy sends; a caller's own cancellation is never an
    AuthError. A deadline that has passed leaves no time, and a limit (RATE_LIMITED) is the caller's to wait for.
    """
    return isinstance(error, Unavailable) and error.code in {"UNAVAILABLE", "CANCELLED"}
