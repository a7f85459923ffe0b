"""The audit trail as log lines: one JSON object a decision, on the stream that it is given. Best effort.

Nothing is synced and nothing is chained: for a trail that can be relied on, set audit.path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.adapters.line_stream import LineStream
    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.service.ports import AuditObserver


@dataclass(slots=True)
class AuditLog:
    """Writes each record as a line before its token leaves. A stream that takes none stops issuance.

    A record that is followed by a "withheld" line of its decision_id is of a token that didn't leave.

    `worker` is this process's number among several. `patience` is how long a decision waits for the stream's reader,
    in seconds.
    """

    stream: LineStream
    observer: AuditObserver
    worker: int | None = None
    patience: float = 2.0
    _failed: bool = False

    async def open(self) -> None:
        """Nothing to open."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Writes a line for each. Raises AUDIT_UNAVAILABLE."""
        lines = [f'{self._start}"kind":"decision",{record.to_json()[1:]}\n' for record in records]
        try:
            await self.stream.write_through("".join(lines).encode("ascii"), self.patience)
        except (OSError, TimeoutError):
            self._is(up=False)
            for record in records:  # in case a part went out after all
                self.note(f'"kind":"withheld","decision_id":"{record.decision_id}"')
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued") from None
        self._is(up=True)

    def note(self, members: str) -> None:
        """Writes a line that is lost when it can't be written."""
        dropped = self.stream.dropped
        self.stream.write(f"{self._start}{members}}}\n".encode("ascii"))
        if self.stream.dropped > dropped:
            self.observer.dropped(1)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Writes a line for each, which is lost when it can't be written."""
        for decision in decisions:
            self.note(f'"kind":"withheld","decision_id":"{decision}","why":"{why}"')

    def tick(self) -> None:
        """Nothing to do now and then."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""
        return ["the audit trail can't be written to the log"] if self._failed else []

    async def close(self) -> None:
        """Nothing to close: the stream is the process's."""

    @property
    def _start(self) -> str:
        return '{"event":"audit",' if self.worker is None else f'{{"event":"audit","worker":{self.worker},'

    def _is(self, *, up: bool) -> None:
        if self._failed == up:
            self._failed = not up
            self.observer.up(up=up)
