"""The audit trail as log lines: one JSON object per line, on the stream that it is given. Best effort.

Nothing is synced and nothing is chained: for a durable trail, set audit.path. Permits and denials each have a lane of
the stream of their own. Neither is crowded out by the other or by lines that aren't the trail's, nor crowds those out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.audit.chained_file import reason
from livekit_auth_server.audit.sink import unavailable
from livekit_auth_server.core.audit import Withheld, json_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditLine, AuditRecord
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.service.ports import AuditObserver, Clock


@dataclass(slots=True)
class AuditLog:
    """Writes each record as a line before its token leaves. A stream that takes no line stops issuance.

    `worker` is this process's number where there are several. `patience` is how long a decision waits for the stream's
    reader, in seconds.
    """

    stream: LineStream
    clock: Clock
    observer: AuditObserver
    worker: int | None = None
    patience: float = 2.0
    _failure: str = ""  # why nothing can be written; empty if all is well
    _permits: LineStream = field(init=False)
    _notes: LineStream = field(init=False)

    def __post_init__(self) -> None:
        self._permits, self._notes = self.stream.lane(), self.stream.lane()

    async def open(self) -> None:
        """Nothing to open."""

    def stopped(self) -> bool:
        """Never: each record tries."""
        return False

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Writes a line per record. Raises AUDIT_UNAVAILABLE."""
        try:
            await self._permits.write_through(b"".join(map(self._line, records)), self.patience)
        except (OSError, TimeoutError) as error:
            self._failure = reason(error) if not isinstance(error, TimeoutError) else "nobody reads it"
            self._not_left(records, "the decision can't be recorded")
            raise unavailable() from None
        except asyncio.CancelledError:
            self._not_left(records, "the call had ended")
            raise
        self._failure = ""

    def note(self, line: AuditLine) -> None:
        """Writes a line, which is lost if it can't be written now."""
        self._add(self._notes, line)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Writes a line per decision, after that of its permit. It is lost if it can't be written now."""
        for decision in decisions:
            self._add(self._permits, Withheld(decision, int(self.clock.now()), why))

    def _not_left(self, records: Sequence[AuditRecord], why: str) -> None:
        """Withholds records that were perhaps written in part, or together with another line."""
        self.withhold([record.decision_id for record in records if record.token_sha256], why)

    def tick(self) -> None:
        """Nothing to do."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can."""
        return [f"the audit trail can't be written to the log: {self._failure}"] if self._failure else []

    async def close(self) -> None:
        """Nothing to close: the stream is the process's."""

    def _line(self, line: AuditLine) -> bytes:
        worker = {} if self.worker is None else {"worker": self.worker}
        return json_line({"event": "audit", **worker, **line.members()}) + b"\n"

    def _add(self, lane: LineStream, line: AuditLine) -> None:
        dropped = lane.dropped
        lane.write(self._line(line))
        if lane.dropped > dropped:
            self.observer.dropped(1)
