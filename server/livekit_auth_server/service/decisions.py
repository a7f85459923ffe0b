"""GetDecision: denials as they are kept for a while, and explained to those who may know.

Guarantees: what is kept holds no metadata, attributes, grants or token, and takes at most `MAX_BYTES`; a decision that
a caller may not read gets the answer of one that doesn't exist; an explanation doesn't tell a role that exists from one
that doesn't, unless the policy entry permits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import decision_pb2
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.convert import cut
from livekit_auth_server.service.validation import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.core.policy import CallerPolicy, Lack
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.ports import DecisionStore
    from livekit_auth_server.service.validation import Valid

MAX_BYTES = 12 * KIB  # of a kept decision: somewhat over 4 KiB of what was asked for, at most, and shortfalls
_LISTED = 16  # shortfalls of a decision, and lacks of each
_MESSAGE, _LACK = 1024, 256  # bytes of UTF-8
_ROLE = "role:"


@dataclass(frozen=True, slots=True)
class Decisions:
    """Keeps denials, and explains them."""

    store: DecisionStore

    def keep(self, record: AuditRecord, message: str, lacked: Sequence[tuple[str, Sequence[Lack]]] = ()) -> None:
        """Keeps a denial as it was recorded and answered. Waits for nothing."""
        kept = decision_message(record, message, lacked).SerializeToString()
        self.store.keep(record.caller, record.decision_id, kept)

    async def get(self, caller: ListedCaller, request: Valid[pb.GetDecisionRequest]) -> pb.GetDecisionResponse:
        """GetDecision: for the caller that was denied, and for callers that may read its project's decisions."""
        decision_id = request.message.decision_id
        decision = _read(decision_id, await self.store.find(decision_id))
        if decision is None or not _may_read(caller.renewed().policy, decision):
            raise Refusal(Reason.DECISION_NOT_FOUND, "no recent denial that you may read has this id")
        return pb.GetDecisionResponse(decision=decision)


def decision_message(
    record: AuditRecord, message: str, lacked: Sequence[tuple[str, Sequence[Lack]]]
) -> decision_pb2.Decision:
    """The denial for GetDecision, within the contract's limits and `MAX_BYTES`."""
    decision = decision_pb2.Decision(
        decision_id=record.decision_id,
        workload_id=record.caller,
        method=record.method,
        reason=record.reason,
        message=cut(message, _MESSAGE),
        policy_revision=record.policy_revision,
        project=record.project,
        role=record.access.removeprefix(_ROLE) if record.access.startswith(_ROLE) else "",
        room=record.room,
        identity=record.identity,
        request_reason=record.request_reason,
        shortfall_count=len(lacked),
    )
    decision.decide_time.seconds = record.time
    if record.ttl is not None:
        decision.ttl.seconds = record.ttl
    room = MAX_BYTES - decision.ByteSize()
    for entry, lacks in islice(lacked, _LISTED):
        shortfall = decision.shortfalls.add(entry=entry)
        _list(lacks, shortfall)
        room -= shortfall.ByteSize() + 4  # the field's tag and length
        if room < 0:
            del decision.shortfalls[-1]
            break
    return decision


def _list(lacks: Sequence[Lack], shortfall: decision_pb2.EntryShortfall) -> None:
    """The first few, and none after a role that isn't permitted: only one that exists can lack more."""
    for lack in islice(lacks, _LISTED):
        shortfall.lacks.add(reason=lack.reason, message=cut(lack.message, _LACK))
        if lack.reason is Reason.ROLE_NOT_PERMITTED:
            return


def _read(decision_id: str, kept: bytes | None) -> decision_pb2.Decision | None:
    """What was kept under the id. None for something else: a shared store may hold anything."""
    if kept is None or len(kept) > MAX_BYTES:
        return None
    try:
        decision = decision_pb2.Decision.FromString(kept)
    except DecodeError:
        return None
    return decision if decision.decision_id == decision_id else None


def _may_read(caller: CallerPolicy, decision: decision_pb2.Decision) -> bool:
    """Whether it was the caller's own request, or in a project whose decisions it may read."""
    return decision.workload_id == caller.id or decision.project in caller.read_decisions
