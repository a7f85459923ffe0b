"""Prometheus metrics of the work within a call: minting a token, checking a webhook."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import Counter

from livekit_auth_server.telemetry.counters import TimesBy

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.keys import ApiKey
    from livekit_auth_server.core.policy import Grant

    Mint = Callable[[Grant, ApiKey, int], str]

_MINT = (0.00001, 0.000025, 0.0001, 0.0005, 0.0025, 0.01)  # seconds


def timed(mint: Mint, registry: CollectorRegistry) -> Mint:
    """`mint` with a stopwatch around it."""
    text = "Time to make and sign a token, in seconds."
    add = TimesBy("livekit_auth_mint_seconds", text, _MINT, registry).of().add

    def timed_mint(grant: Grant, key: ApiKey, now: int) -> str:
        started = perf_counter()
        token = mint(grant, key, now)
        add(perf_counter() - started)
        return token

    return timed_mint


class WebhookMetrics:
    """Counts genuine webhooks by whether their caller had handled them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "livekit_auth_webhooks",
            "Webhooks that LiveKit has signed, by whether their caller had acknowledged them.",
            ("duplicate",),
            registry=registry,
        )
        names = {True: "yes", False: "no", None: "unknown"}
        self._children = {answer: counter.labels(name) for answer, name in names.items()}

    def checked(self, duplicate: bool | None) -> None:  # noqa: FBT001 - the answer
        """A webhook was genuine; None when nobody could say whether it came before."""
        self._children[duplicate].inc()
