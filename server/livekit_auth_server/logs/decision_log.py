"""Decisions as log lines for people, beside the audit trail: the setting `log.decisions`.

For trying things out. It isn't a trail: lines beyond a rate are only counted, and nothing waits for a line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from livekit_auth_server.logs.bounded_rate import FewLines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.service.ports import AuditSink, Clock

_SHOWN = ("method", "caller", "access", "project", "room", "identity", "ttl", "entry", "reason", "decision_id")


class DecisionLog:
    """Hands each decision to the trail, then logs it: service.ports.AuditSink."""

    def __init__(self, trail: AuditSink, clock: Clock) -> None:
        self._trail, self._lines = trail, FewLines(clock)

    async def record(self, *records: AuditRecord) -> None:
        """Records permits. Raises AUDIT_UNAVAILABLE."""
        await self._trail.record(*records)
        for record in records:
            self._say("permitted, dry run" if record.dry_run else "permitted", record)

    def withhold(self, records: Sequence[AuditRecord], why: str) -> None:
        """Records that the tokens of recorded permits didn't leave. Waits for nothing."""
        self._trail.withhold(records, why)
        for record in records:
            self._say("withheld", replace(record, reason=why))

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        """Records a denial. Waits for nothing."""
        self._trail.deny(record, listed=listed)
        self._say("denied", record)

    def _say(self, event: str, record: AuditRecord) -> None:
        fields = {name: getattr(record, name) for name in _SHOWN}
        self._lines.say("info", event, {name: value for name, value in fields.items() if value not in ("", None)})
