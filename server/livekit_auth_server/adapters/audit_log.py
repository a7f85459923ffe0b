"""The audit trail as log lines: one JSON object a decision, on the stream that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from livekit_auth_server.adapters.line_stream import LineStream
    from livekit_auth_server.core.audit import AuditRecord


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Writes each record as a line before its token leaves. A stream that takes none stops issuance.

    A record that is followed by a "withdrawn" line of its decision_id is of a token that didn't leave.

    `patience` is how long a decision waits for the stream's reader, in seconds.
    """

    stream: LineStream
    patience: float = 2.0

    async def record(self, record: AuditRecord) -> None:
        """Writes one line. Raises AUDIT_UNAVAILABLE."""
        line = b'{"event":"audit",' + record.to_json()[1:].encode("ascii") + b"\n"
        try:
            await self.stream.write_through(line, self.patience)
        except (OSError, TimeoutError):
            withdrawn = f'{{"event":"audit","decision_id":"{record.decision_id}","withdrawn":true}}\n'
            self.stream.write(withdrawn.encode("ascii"))  # in case a part of the record went out after all
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued") from None
