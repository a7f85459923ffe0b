"""Log lines that others can cause: at most LINES per SECONDS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth_server.service.ports import Clock

LINES, SECONDS = 10, 1.0
"""At most LINES log lines per SECONDS; further ones are counted in the next line's `not_logged`."""


class FewLines:
    """Logs at a bounded rate, which all callers share: logs.counted_lines has an allowance per caller."""

    def __init__(self, clock: Clock) -> None:
        self._log, self._clock = structlog.get_logger("livekit_auth_server"), clock
        self._window, self._lines, self._not_logged = float("-inf"), 0, 0

    def say(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Logs a line, or counts it."""
        now = self._clock.monotonic()
        if now - self._window >= SECONDS:
            self._window, self._lines = now, 0
        if self._lines >= LINES:
            self._not_logged += 1
            return
        self._lines += 1
        left, self._not_logged = self._not_logged, 0
        getattr(self._log, level)(event, **fields, **({"not_logged": left} if left else {}))
