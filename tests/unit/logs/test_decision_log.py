"""Decisions for people: after the trail, bounded, and without a token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.logs.bounded_rate import LINES, SECONDS
from livekit_auth_server.logs.decision_log import DecisionLog
from support.fakes import AuditTrail, FakeClock
from support.records import RECORD

if TYPE_CHECKING:
    from livekit_auth_server.core.audit import AuditRecord


def decision(**changes: Any) -> AuditRecord:
    return replace(RECORD, decision_id="d1", token_sha256="f00d", **changes)


async def test_each_decision_is_in_the_trail_and_then_in_the_log() -> None:
    trail, denied = AuditTrail(), decision(permitted=False, reason="ROOM_NOT_PERMITTED", ttl=None)
    log = DecisionLog(trail, FakeClock())
    with structlog.testing.capture_logs() as lines:
        await log.record(decision(), decision(dry_run=True))
        log.deny(denied, listed=False)
    assert (trail.records, trail.unlisted) == ([decision(), decision(dry_run=True)], [denied])
    assert [line["event"] for line in lines] == ["permitted", "permitted, dry run", "denied"]
    assert lines[2] == {
        "event": "denied",
        "log_level": "info",
        "method": "IssueToken",
        "caller": "spiffe://example.org/web",
        "access": "role:guest",
        "project": "alpha",
        "room": "consult-1",
        "identity": "user-1",
        "entry": "consult",
        "reason": "ROOM_NOT_PERMITTED",
        "decision_id": "d1",
    }
    assert "f00d" not in str(lines)


async def test_a_permit_that_isnt_recorded_isnt_said_to_be_one() -> None:
    trail = AuditTrail(room=0)
    log = DecisionLog(trail, FakeClock())
    with structlog.testing.capture_logs() as lines, pytest.raises(Refusal):
        await log.record(decision())
    assert lines == []


async def test_denials_cant_fill_the_log() -> None:
    clock = FakeClock()
    log = DecisionLog(AuditTrail(), clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            log.deny(decision(permitted=False))
        clock.advance(SECONDS)
        log.deny(decision(permitted=False))
    assert (len(lines), lines[-1]["not_logged"]) == (LINES + 1, 1000 - LINES)
