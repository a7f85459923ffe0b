"""What the service needs from outside, as narrow protocols, and what it tells. Tests use fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.core.limits import Charge, Excess
    from livekit_auth_server.core.trace import TraceParent


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""


class AuditSink(Protocol):
    """Where issuance decisions are recorded."""

    async def record(self, *records: AuditRecord) -> None:
        """Records permits. Raises AUDIT_UNAVAILABLE when it can't; then none of their tokens may leave."""

    def withhold(self, records: Sequence[AuditRecord], why: str) -> None:
        """Says that the tokens of these recorded permits didn't leave. Waits for nothing."""

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        """Records a denial, or counts it when there are many. Waits for nothing, so that nobody is held up by it."""


class AuditObserver(Protocol):
    """Hears of the audit trail, for metrics."""

    def head(self, sequence: int) -> None:
        """The chain's head went to the log; it has this number."""

    def dropped(self, count: int) -> None:
        """So many lines about denials were lost."""

    def coalesced(self, count: int) -> None:
        """So many denials were counted in a line that they share."""

    def decided(self, record: AuditRecord) -> None:
        """A denial, or a permit that is recorded: its answer may leave."""

    def unrecorded(self, records: Sequence[AuditRecord]) -> None:
        """Permits that couldn't be recorded, so nothing is issued."""

    def withheld(self, records: Sequence[AuditRecord], why: str) -> None:
        """Permits that were recorded, and whose tokens didn't leave since something was revoked or replaced."""

    def waited(self, seconds: float) -> None:
        """So long a call waited for its permits to be recorded."""


class AckStore(Protocol):
    """Which webhooks each caller has acknowledged."""

    async def is_acknowledged(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> bool:
        """Whether this caller acknowledged this event with these bytes. Raises StoreUnavailable."""

    async def acknowledge(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> int:
        """Remembers it; returns until when, in seconds since the epoch. Raises StoreUnavailable."""


class DecisionStore(Protocol):
    """Recent denials, each a serialised v1.Decision."""

    def keep(self, caller: str, decision_id: str, decision: bytes) -> None:
        """Keeps a caller's denial for a while. Never fails, waits for nothing."""

    async def find(self, decision_id: str) -> bytes | None:
        """The denial; None if there is none, or none any more. Takes as long for one as for the other."""


class LimitStore(Protocol):
    """What callers have used of their limits."""

    async def take(self, caller: str, charges: Sequence[Charge]) -> Excess | None:
        """Counts all of a caller's charges, or none and names the limit to wait for. Raises StoreUnavailable."""


class LimitObserver(Protocol):
    """Hears of calls that went over a limit, for metrics."""

    def limited(self, method: str) -> None:
        """A call of this method was refused."""


class WebhookObserver(Protocol):
    """Hears of webhooks that were genuine, for metrics."""

    def checked(self, duplicate_status: str) -> None:
        """Whether the caller had acknowledged it: "new", "duplicate" or "unknown", as DuplicateStatus has it."""


class StoreUnavailable(Exception):  # noqa: N818 - a condition, not a fault of the program
    """The store can't be asked, or has no room for this caller."""


@dataclass(slots=True)
class FinishedCall:
    """How a call ended. Nothing here is secret.

    `caller` is verified, and empty for a call without an accepted identity; `listed` is whether the policy has it.
    `overload` is the bound that an OVERLOADED call met, one of core.refusal.Overload.
    """

    method: str
    peer: str
    audited: bool
    user_agent: str = ""
    trace: TraceParent | None = None
    tracestate: str = ""
    caller: str = ""
    listed: bool = False
    code: str = "OK"
    reason: str = ""
    message: str = ""
    decision_id: str = ""
    overload: str = ""
    seconds: float = 0.0

    @property
    def trace_id(self) -> str:
        """The caller's trace, empty when it sent none."""
        return self.trace.trace_id if self.trace is not None else ""


class CallObserver(Protocol):
    """Hears of every finished call, for metrics and the log."""

    def finished(self, call: FinishedCall) -> None:
        """A call has ended, well or not."""
