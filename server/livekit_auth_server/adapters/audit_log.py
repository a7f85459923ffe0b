"""The audit trail as log lines: one JSON object a decision, on the stream that it is given. Best effort.

Nothing is synced and nothing is chained, and a reader that doesn't take its lines blocks the server: for a trail that
can be relied on, set audit.path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.service.ports import AuditObserver


@dataclass(slots=True)
class AuditLog:
    """Writes each record as a line before its token leaves. A stream that can't be written stops issuance."""

    stream: BinaryIO
    observer: AuditObserver
    _failed: bool = False

    async def open(self) -> None:
        """Nothing to open."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Writes a line for each. Raises AUDIT_UNAVAILABLE."""
        lines = [f'{{"event":"audit","kind":"decision",{record.to_json()[1:]}\n' for record in records]
        if not self._write("".join(lines)):
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued")

    def note(self, members: str) -> None:
        """Writes a line that is lost when it can't be written."""
        if not self._write(f'{{"event":"audit",{members}}}\n'):
            self.observer.dropped(1)

    def tick(self) -> None:
        """Nothing to do now and then."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""
        return ["the audit trail can't be written to the log"] if self._failed else []

    async def close(self) -> None:
        """Nothing to close: the stream is the process's."""

    def _write(self, text: str) -> bool:
        try:
            self.stream.write(text.encode("ascii"))
            self.stream.flush()
        except (OSError, ValueError):
            self._failed = True
            self.observer.up(up=False)
            return False
        if self._failed:
            self._failed = False
            self.observer.up(up=True)
        return True
