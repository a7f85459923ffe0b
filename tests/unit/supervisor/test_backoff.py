"""How long a dead worker's successor waits."""

from __future__ import annotations

import random

from livekit_auth_server.supervisor.backoff import FIRST, LONGEST, STEADY, Backoff


class Most(random.Random):
    """Chance that always takes the longest."""

    def uniform(self, _a: float, b: float) -> float:
        return b


def test_the_first_restart_comes_at_once_almost_and_each_further_one_waits_twice_as_long() -> None:
    backoff = Backoff(Most())
    assert [backoff.pause(0) for _ in range(4)] == [FIRST, FIRST * 2, FIRST * 4, FIRST * 8]


def test_it_never_waits_longer_than_the_longest() -> None:
    backoff = Backoff(Most())
    assert [backoff.pause(0) for _ in range(2000)][-1] == LONGEST


def test_a_worker_that_served_for_long_starts_the_count_anew() -> None:
    backoff = Backoff(Most())
    for _ in range(6):
        backoff.pause(STEADY - 0.1)
    assert backoff.pause(STEADY) == FIRST
    assert backoff.pause(0) == FIRST * 2


def test_pauses_are_spread_over_the_upper_half() -> None:
    pauses = {Backoff(random.Random(seed)).pause(0) for seed in range(200)}  # noqa: S311 - a test's
    assert FIRST / 2 <= min(pauses) < FIRST * 0.55
    assert FIRST * 0.95 < max(pauses) <= FIRST
