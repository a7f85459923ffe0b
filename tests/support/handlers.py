"""What the service needs from outside, as fakes: a clock that stands still, an audit trail in a list, an identifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from livekit_auth_server.core.identity import Identified, TrustBundles
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.service.admission import ListedCaller
from livekit_auth_server.service.batches import Batches
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.method import Undecoded
from livekit_auth_server.service.state import State
from livekit_auth_server.service.turns import Turns
from support.policies import CALLER, EVERYTHING, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livekit_auth.v1 import auth_service_pb2 as pb
    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.policy import AllowEntry
    from livekit_auth_server.service.ports import FinishedCall

NOW = 1_800_000_000
SECRET = "a secret of enough bytes that only these tests know"
KEY = ApiKey("APIfirst", Secret(SECRET.encode()))
URL = "wss://livekit.example.org"


def key(name: str, state: KeyState = KeyState.ACTIVE) -> ApiKey:
    return ApiKey(name, Secret(SECRET.encode()), state)


def keys_of(*keys: ApiKey, project: str = "default") -> KeySet:
    return KeySet([Project(project, URL, keys)])


IDENTIFIED = Identified(WorkloadId.parse(CALLER), "2a", NOW - 60, NOW + 3600)


@dataclass
class FakeClock:
    """Stands still by the wall, and takes half a second between two looks at the stopwatch."""

    time: float = NOW + 0.75
    ticks: count = field(default_factory=count)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return next(self.ticks) * 0.5


@dataclass
class FakeIdentifier:
    """Takes everybody for one workload, or refuses."""

    identified: Identified = IDENTIFIED
    refusal: Exception | None = None
    bundles: TrustBundles = field(default_factory=lambda: TrustBundles({}))

    def identify(self, _leaf_pem: bytes, _chain_pem: bytes, _now: int, _source: str = "") -> Identified:
        if self.refusal is not None:
            raise self.refusal
        return self.identified


@dataclass
class AuditTrail:
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
class AuditWatch:
    """An observer of the audit trail that remembers."""

    ups: list[bool] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    lost: int = 0
    shared: int = 0
    decisions: list[AuditRecord] = field(default_factory=list)
    refused: list[AuditRecord] = field(default_factory=list)
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def up(self, *, up: bool) -> None:
        if not self.ups or self.ups[-1] is not up:
            self.ups.append(up)

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
class CallLog:
    """An observer that remembers."""

    calls: list[FinishedCall] = field(default_factory=list)

    def finished(self, call: FinishedCall) -> None:
        self.calls.append(call)


def state_of(*entries: AllowEntry, roles: Mapping[str, Grants] | None = None, keys: KeySet | None = None) -> State:
    """A state whose policy lists one caller; without entries it lists nobody else and permits that one nothing."""
    policy, _ = policy_of(*entries, roles=roles)
    return State(policy, keys or keys_of(KEY), FakeIdentifier())


def listed(*entries: AllowEntry, roles: Mapping[str, Grants] | None = None, keys: KeySet | None = None) -> ListedCaller:
    """The caller as a handler gets it. Without entries it may do everything."""
    policy, caller = policy_of(*(entries or (EVERYTHING,)), roles=roles)
    return ListedCaller(IDENTIFIED, caller, policy, keys or keys_of(KEY), NOW, "", None, 0, lambda caller: caller)


def issuer(audit: AuditTrail) -> Issuer:
    """An issuer whose decisions are called d1, d2 and so on."""
    numbers = count(1)
    return Issuer(audit, lambda: f"d{next(numbers)}")


async def free(_caller: object, _request: object) -> None:
    """Charges nothing."""


async def issue_batch(
    issuer: Issuer, caller: ListedCaller, request: pb.BatchIssueTokensRequest, turns: Turns | None = None
) -> pb.BatchIssueTokensResponse:
    """BatchIssueTokens as its handler answers it, uncharged."""
    batches = Batches(issuer, turns or Turns(FakeClock()))
    return await batches.issue(caller, Undecoded(request.SerializeToString(), free))
