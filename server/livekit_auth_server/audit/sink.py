"""The port behind which the audit trail is kept: a file, the log, a collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditLine, AuditRecord


class SinkError(Exception):
    """The sink can't be written now; the message says why."""


class Sink(Protocol):
    """Takes lines of the trail. A sink that must not stop issuance refuses nothing and is always ready."""

    async def open(self) -> None:
        """Prepares for writing. Raises SinkError."""

    def stopped(self) -> bool:
        """Whether `record` would refuse everything now, without a try."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Takes permits; returns when the sink has them, as far as it promises that. Raises AUDIT_UNAVAILABLE."""

    def note(self, line: AuditLine) -> None:
        """Takes a line that nobody waits for. It may be lost, and is then counted."""

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Takes a line per decision: its token didn't leave. Nobody waits for it."""

    def tick(self) -> None:
        """Is called every second."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can."""

    async def close(self) -> None:
        """Writes what is pending and closes the sink."""


def unavailable() -> Refusal:
    """The refusal of a request whose decision can't be recorded."""
    return Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued")
