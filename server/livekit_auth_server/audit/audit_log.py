"""The audit trail as log lines: one JSON object a decision, on the stream that it is given. Best effort.

Nothing is synced and nothing is chained: for a trail that can be relied on, set audit.path. Permits have a lane of the
stream to themselves, and so have notes about denials: neither is crowded out by the other, or by lines that aren't the
trail's, and neither crowds those out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.audit.chained_file import reason
from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.logs.nonblocking_stream import LineStream
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
    _failure: str = ""  # why nothing can be written; empty while all is well
    _permits: LineStream = field(init=False)
    _notes: LineStream = field(init=False)

    def __post_init__(self) -> None:
        self._permits, self._notes = self.stream.lane(), self.stream.lane()

    async def open(self) -> None:
        """Nothing to open."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Writes a line for each. Raises AUDIT_UNAVAILABLE."""
        lines = [f'{self._start}"kind":"decision",{record.to_json()[1:]}\n' for record in records]
        try:
            await self._permits.write_through("".join(lines).encode("ascii"), self.patience)
        except (OSError, TimeoutError) as error:
            self._is(reason(error) if not isinstance(error, TimeoutError) else "nobody reads it")
            self._not_left(records, "the decision can't be recorded")
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued") from None
        except asyncio.CancelledError:
            self._not_left(records, "the call had ended")
            raise
        self._is("")

    def note(self, members: str) -> None:
        """Writes a line that is lost when it can't be written."""
        self._add(self._notes, members)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Writes a line for each, behind its permit; it is lost when it can't be written."""
        for decision in decisions:
            self._add(self._permits, f'"kind":"withheld","decision_id":"{decision}","why":"{why}"')

    def _not_left(self, records: Sequence[AuditRecord], why: str) -> None:
        """Withholds what may have gone out in part, or by another line's writing."""
        self.withhold([record.decision_id for record in records if record.token_sha256], why)

    def tick(self) -> None:
        """Nothing to do now and then."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""
        return [f"the audit trail can't be written to the log: {self._failure}"] if self._failure else []

    async def close(self) -> None:
        """Nothing to close: the stream is the process's."""

    @property
    def _start(self) -> str:
        return '{"event":"audit",' if self.worker is None else f'{{"event":"audit","worker":{self.worker},'

    def _add(self, lane: LineStream, members: str) -> None:
        dropped = lane.dropped
        lane.write(f"{self._start}{members}}}\n".encode("ascii"))
        if lane.dropped > dropped:
            self.observer.dropped(1)

    def _is(self, failure: str) -> None:
        if bool(self._failure) is not bool(failure):
            self.observer.up(up=not failure)
        self._failure = failure
