"""Rate limits in memory, of this process alone, by its monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.core.limits import Excess, MovingWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.limits import Charge
    from livekit_auth_server.service.ports import Clock

_SWEEP = 60.0  # seconds between two sweeps of unused windows


@dataclass(slots=True)
class MemoryLimits:
    """A window for each limit of each recent caller."""

    clock: Clock
    _windows: dict[tuple[str, str], MovingWindow] = field(default_factory=dict)
    _next_sweep: float = 0.0

    async def take(self, caller: str, charges: Sequence[Charge]) -> Excess | None:
        """Counts all charges, or none, and returns the limit that frees up last. Awaits nothing: atomic."""
        now = self.clock.monotonic()
        if now >= self._next_sweep:
            self._sweep(now)
        windows = [self._window(caller, charge) for charge in charges]
        worst: Excess | None = None
        for window, (limit, cost) in zip(windows, charges, strict=True):
            wait = window.wait(cost, now)
            if wait > 0 and (worst is None or wait > worst.retry_after):
                worst = Excess(limit, wait)
        if worst is None:
            for window, charge in zip(windows, charges, strict=True):
                window.add(charge.cost, now)
        return worst

    def _window(self, caller: str, charge: Charge) -> MovingWindow:
        key = caller, charge.limit.key
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = MovingWindow(charge.limit)
        return window

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + _SWEEP
        for key in [key for key, window in self._windows.items() if window.empty(now)]:
            del self._windows[key]
