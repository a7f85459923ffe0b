"""The audit trail as log lines: one JSON object a decision, on the stream that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from livekit_auth_server.core.audit import AuditRecord


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Writes each record as a line before its token leaves. A stream that can't be written stops issuance."""

    stream: BinaryIO

    async def record(self, record: AuditRecord) -> None:
        """Writes one line. Raises AUDIT_UNAVAILABLE."""
        try:
            self.stream.write(b'{"event":"audit",' + record.to_json()[1:].encode("ascii") + b"\n")
            self.stream.flush()
        except (OSError, ValueError):
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued") from None
