"""How long it takes to make and sign a token."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from livekit_auth_server.telemetry.counters import TimesBy

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.keys import ApiKey
    from livekit_auth_server.core.policy import Grant

    Mint = Callable[[Grant, ApiKey, int], str]

_BUCKETS = (0.00001, 0.000025, 0.0001, 0.0005, 0.0025, 0.01)  # seconds


def timed(mint: Mint, registry: CollectorRegistry) -> Mint:
    """`mint` with a stopwatch around it."""
    text = "Time to make and sign a token, in seconds."
    add = TimesBy("livekit_auth_mint_seconds", text, _BUCKETS, registry).of().add

    def timed_mint(grant: Grant, key: ApiKey, now: int) -> str:
        started = perf_counter()
        token = mint(grant, key, now)
        add(perf_counter() - started)
        return token

    return timed_mint
