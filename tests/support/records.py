"""A record of the audit trail, as a permit leaves it, and lines of any members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit_auth_server.core.audit import AuditRecord

RECORD = AuditRecord(
    decision_id="d" * 24,
    time=1_800_000_000,
    caller="spiffe://example.org/web",
    certificate_serial="1f",
    method="IssueToken",
    permitted=True,
    dry_run=False,
    project="alpha",
    access="role:guest",
    room="consult-1",
    identity="user-1",
    ttl=600,
    entry="consult",
    reason="",
    key_id="APIalpha",
    token_sha256="0" * 64,
    policy_revision="a" * 16,
    trace_id="",
)


@dataclass(frozen=True)
class Line:
    """A decision of any members."""

    fields: dict[str, Any]

    def members(self) -> dict[str, Any]:
        return {"kind": "decision", **self.fields}
