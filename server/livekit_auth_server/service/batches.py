"""BatchIssueTokens: each entry by itself, in turns and slices.

Guarantees: a waiting batch is bytes, and only one entry of a batch is decoded at a time; every entry is decided on the
state of that moment; no token leaves before its record is written, nor if it wouldn't be issued again when the whole
answer is ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.refusal import Refusal, Violation, invalid
from livekit_auth_server.service.decoding import decoded
from livekit_auth_server.service.issue import MAX_RESPONSE, too_large
from livekit_auth_server.service.methods import BATCH_ISSUE_TOKENS, ISSUE_TOKEN
from livekit_auth_server.service.status import to_status
from livekit_auth_server.service.validation import MAX_BATCH, Valid

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.issue import Issuer, Permit
    from livekit_auth_server.service.method import Undecoded
    from livekit_auth_server.service.turns import Turns

_LEAST_RESULT = 256  # bytes of RESPONSE_TOO_LARGE in a batch's response, reserved for every entry


def _undecoded_entries() -> Any:  # noqa: ANN401 - a message class
    """BatchIssueTokensRequest with entries of bytes, which are the same on the wire as messages."""
    batch = pb.BatchIssueTokensRequest.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(name=__name__, package=batch.file.package, syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name=batch.name).field.add(
        name="requests",
        number=batch.fields_by_name["requests"].number,
        label=kind.LABEL_REPEATED,
        type=kind.TYPE_BYTES,
    )
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(batch.full_name))


_Entries = _undecoded_entries()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was read: how many entries it has, the bytes of each, and their projects for the charge.

    Both are empty when there are too many, or none.
    """

    count: int
    entries: tuple[bytes, ...] = ()
    projects: tuple[str, ...] = ()


async def read(data: bytes, turns: Turns) -> Batch:
    """Splits a batch and reads each entry once. Raises as `decoded` does, if any entry can't be read."""
    split: list[Batch] = []
    await turns.each((data,), lambda data: split.append(_split(data)))
    [batch] = split
    projects: list[str] = []
    await turns.each(range(len(batch.entries)), lambda index: projects.append(_entry(batch.entries, index).project))
    return Batch(batch.count, batch.entries, tuple(projects))


def _split(data: bytes) -> Batch:
    entries = decoded(_Entries, data, BATCH_ISSUE_TOKENS.max_bytes).requests
    return Batch(len(entries), tuple(entries) if len(entries) <= MAX_BATCH else ())


def _entry(entries: tuple[bytes, ...], index: int) -> pb.IssueTokenRequest:
    return decoded(pb.IssueTokenRequest, entries[index], ISSUE_TOKEN.max_bytes, f"requests[{index}]")


@dataclass(slots=True)
class _Answer:
    """A batch's response while it is made. `permits` are those whose tokens it holds, by entry."""

    issuer: Issuer
    caller: ListedCaller
    entries: tuple[bytes, ...]
    response: pb.BatchIssueTokensResponse = field(default_factory=pb.BatchIssueTokensResponse)
    permits: dict[int, Permit] = field(default_factory=dict)
    unrecorded: list[int] = field(default_factory=list)
    left: int = 0

    def __post_init__(self) -> None:
        self.left = MAX_RESPONSE - _LEAST_RESULT * len(self.entries)
        for _ in self.entries:
            self.response.results.add()

    def decide(self, index: int) -> None:
        """Decides on an entry by the current state. Raises what a call of its own would meet now."""
        self.caller = self.caller.renewed()
        result = self.response.results[index]
        self.left += _room(result)
        result.Clear()
        try:
            permit = self.issuer.decide(self.caller, self._valid(index), BATCH_ISSUE_TOKENS.name, self.left)
        except Refusal as refusal:
            error = to_status(refusal)
            if error.ByteSize() > self.left:
                error = to_status(too_large(refusal.metadata.get("decision_id", "")))
            result.error.CopyFrom(error)
        else:
            result.response.CopyFrom(permit.response)
            self.permits[index] = permit
            self.unrecorded.append(index)
        self.left -= _room(result)

    def _valid(self, index: int) -> Valid[pb.IssueTokenRequest]:
        """The entry. Raises REQUEST_INVALID, which is recorded."""
        request = _entry(self.entries, index)
        try:
            return Valid(request)
        except Refusal as refusal:
            raise self.issuer.deny_invalid(self.caller, BATCH_ISSUE_TOKENS.name, refusal) from None

    async def record(self) -> None:
        """Records the permits that aren't recorded yet. If that fails, none of their tokens leaves."""
        if not self.unrecorded:
            return
        try:
            await self.issuer.audit.record(*(self.permits[index].record for index in self.unrecorded))
        except Refusal as refusal:
            error = to_status(refusal)
            for index in self.unrecorded:
                del self.permits[index]
                self.response.results[index].error.CopyFrom(error)  # and the response is gone: they are a oneof
        self.unrecorded.clear()

    def withdraw(self) -> list[int]:
        """Withholds the tokens that wouldn't be issued now, and returns their entries."""
        self.caller = self.caller.renewed()
        gone = [index for index, permit in self.permits.items() if not permit.stands(self.caller)]
        self.issuer.withhold([self.permits.pop(index) for index in gone])
        return gone

    def abandon(self, error: BaseException) -> None:
        """Withholds every token that is recorded."""
        recorded = [permit for index, permit in self.permits.items() if index not in self.unrecorded]
        self.issuer.withhold(recorded, error.reason if isinstance(error, Refusal) else "the call had ended")


def _room(result: pb.IssueTokenResult) -> int:
    """The bytes that a result takes beyond its reserve; 8 are for the field's tag and length."""
    return max(0, result.ByteSize() + 8 - _LEAST_RESULT)


@dataclass(frozen=True, slots=True)
class Batches:
    """Issues batches, in turns."""

    issuer: Issuer
    turns: Turns

    async def issue(self, caller: ListedCaller, request: Undecoded) -> pb.BatchIssueTokensResponse:
        """BatchIssueTokens: the permits are recorded together."""
        async with self.turns.of(caller.policy.id):
            caller = caller.renewed()
            try:
                batch = await read(request.data, self.turns)
            except Refusal:
                await request.charge(caller, None)
                raise
            await request.charge(caller, batch)
            if not batch.entries:
                caller = caller.renewed()
                broken = Violation("requests", f"needs 1 to {MAX_BATCH} entries, has {batch.count}")
                raise self.issuer.deny_invalid(caller, BATCH_ISSUE_TOKENS.name, invalid(broken))
            answer = _Answer(self.issuer, caller, batch.entries)
            undecided: list[int] = list(range(batch.count))
            try:
                while undecided:
                    await self.turns.each(undecided, answer.decide)
                    await answer.record()
                    undecided = answer.withdraw()
            except BaseException as error:
                answer.abandon(error)
                raise
            return answer.response
