"""Fakes of what the service needs from outside. Each declares its protocol, so that mypy reports one that drifts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.core.identity import Identified, Identifier, TrustBundles
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service.ports import AckStore, AuditObserver, AuditSink, CallObserver, Clock, LimitObserver
from support.policies import CALLER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.service.ports import FinishedCall

NOW = 1_800_000_000
IDENTIFIED = Identified(WorkloadId.parse(CALLER), "2a", NOW - 60, NOW + 3600)


@dataclass
class FakeClock(Clock):
    """Stands still until a test moves it; `step` seconds pass on the stopwatch after each look at it."""

    time: float = NOW + 0.75
    stopwatch: float = 100.0
    step: float = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        seen = self.stopwatch
        self.stopwatch += self.step
        return seen

    def advance(self, seconds: float) -> None:
        """Moves both clocks."""
        self.time += seconds
        self.stopwatch += seconds


class FakeIdentifier(Identifier):
    """Takes everybody for one workload, or refuses."""

    def __init__(
        self,
        identified: Identified = IDENTIFIED,
        refusal: Exception | None = None,
        bundles: TrustBundles | None = None,
    ) -> None:
        super().__init__(bundles or TrustBundles({}))
        self.identified = identified
        self.refusal = refusal
        self.asked = 0

    def identify(self, leaf_pem: bytes, chain_pem: bytes, now: int, source: str = "") -> Identified:  # noqa: ARG002
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return self.identified


@dataclass
class AuditTrail(AuditSink):
    """Keeps records in the order of their decisions; after `room` of them it can take no more permits."""

    records: list[AuditRecord] = field(default_factory=list)
    room: float = float("inf")
    unlisted: list[AuditRecord] = field(default_factory=list)
    withheld: list[tuple[str, str]] = field(default_factory=list)

    async def record(self, *records: AuditRecord) -> None:
        if len(self.records) + len(records) > self.room:
            raise Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued")
        self.records.extend(records)

    def withhold(self, records: Sequence[AuditRecord], why: str) -> None:
        self.withheld.extend((record.decision_id, why) for record in records)

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        (self.records if listed else self.unlisted).append(record)


@dataclass
class AuditWatch(AuditObserver):
    """Remembers what it hears of the audit trail."""

    heads: list[int] = field(default_factory=list)
    lost: int = 0
    shared: int = 0
    decisions: list[AuditRecord] = field(default_factory=list)
    refused: list[AuditRecord] = field(default_factory=list)
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def head(self, sequence: int) -> None:
        self.heads.append(sequence)

    def dropped(self, count: int) -> None:
        self.lost += count

    def coalesced(self, count: int) -> None:
        self.shared += count

    def decided(self, record: AuditRecord) -> None:
        self.decisions.append(record)

    def unrecorded(self, records: Sequence[AuditRecord]) -> None:
        self.refused.extend(records)

    def withheld(self, records: Sequence[AuditRecord], why: str) -> None:
        self.withdrawn.extend((record.decision_id, why) for record in records)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)


@dataclass
class CallLog(CallObserver):
    """Remembers the finished calls."""

    calls: list[FinishedCall] = field(default_factory=list)

    def finished(self, call: FinishedCall) -> None:
        self.calls.append(call)


@dataclass
class LimitLog(LimitObserver):
    """Counts the calls that went over a limit, by method."""

    counted: Counter[str] = field(default_factory=Counter)

    def limited(self, method: str) -> None:
        self.counted[method] += 1


@dataclass
class FakeAckStore(AckStore):
    """Remembers every acknowledgement, for a minute by its own word."""

    stored: list[tuple[str, str, str, bytes]] = field(default_factory=list)

    async def is_acknowledged(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> bool:
        return (caller, project, event_id, body_sha256) in self.stored

    async def acknowledge(self, caller: str, project: str, event_id: str, body_sha256: bytes) -> int:
        self.stored.append((caller, project, event_id, body_sha256))
        return NOW + 60
