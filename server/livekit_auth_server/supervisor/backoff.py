"""How long to wait before a worker that died is started again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FIRST, LONGEST = 0.2, 30.0  # seconds
STEADY = 30.0  # seconds of service after which a death counts as the first one again


@dataclass(slots=True)
class Backoff:
    """Exponential, with a jitter of one half, so that workers that died together don't start together."""

    chance: random.Random = field(default_factory=random.SystemRandom)
    _deaths: int = 0

    def pause(self, served: float) -> float:
        """Seconds to wait after the death of a worker that served for `served` seconds."""
        if served >= STEADY:
            self._deaths = 0
        longest = min(LONGEST, FIRST * 2.0 ** min(self._deaths, 16))
        self._deaths += 1
        return longest * self.chance.uniform(0.5, 1.0)
