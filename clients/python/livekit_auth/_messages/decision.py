"""A denial that the server explains, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth._messages.results import to_datetime
from livekit_auth._messages.status import to_timedelta

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from livekit_auth.v1 import decision_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing that kept an entry from permitting a request."""

    reason: str
    """The contract's ErrorReason without its prefix."""
    message: str
    """The reason in human-readable form; at most 256 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryShortfall:
    """What kept an entry of the policy from permitting a request."""

    entry: str
    """The entry's name."""
    lacks: tuple[Lack, ...]
    """Everything that it lacked, in the order of the checks; at most 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A denied request for a token. Fields are empty if the request was refused before they were read."""

    decision_id: str
    """The decision's id in the audit trail."""
    decide_time: datetime
    """When it was made, in UTC, in whole seconds."""
    workload_id: str
    """The workload identity that was denied."""
    method: str
    """The method that was called."""
    reason: str
    """Why: the contract's ErrorReason without its prefix."""
    message: str
    """The reason as the caller got it; at most 1,024 bytes."""
    policy_revision: str
    """The revision of the policy that denied it."""
    project: str
    """The project that was meant."""
    role: str
    """The role that was requested; empty if grants were."""
    room: str
    """The room that was requested."""
    identity: str
    """The participant's identity that was requested."""
    ttl: timedelta | None
    """The ttl that was requested, or the default of an entry that permitted the request; None if there was none."""
    request_reason: str
    """Who or what was behind the request, as it said."""
    shortfalls: tuple[EntryShortfall, ...]
    """What each entry of the caller's policy lacked, in the order in which they are tried; at most 16."""
    shortfall_count: int
    """How many entries lacked something, listed or not."""


def decision(message: decision_pb2.Decision) -> Decision:
    """Reads a Decision."""
    return Decision(
        decision_id=message.decision_id,
        decide_time=to_datetime(message.decide_time),
        workload_id=message.workload_id,
        method=message.method,
        reason=message.reason,
        message=message.message,
        policy_revision=message.policy_revision,
        project=message.project,
        role=message.role,
        room=message.room,
        identity=message.identity,
        ttl=to_timedelta(message.ttl) if message.HasField("ttl") else None,
        request_reason=message.request_reason,
        shortfalls=tuple(
            EntryShortfall(
                entry=shortfall.entry,
                lacks=tuple(Lack(reason=lack.reason, message=lack.message) for lack in shortfall.lacks),
            )
            for shortfall in message.shortfalls
        ),
        shortfall_count=message.shortfall_count,
    )
