"""What the trail counts: every permit once, and those whose token didn't leave as withheld besides."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from livekit_auth_server.audit.metrics import AuditMetrics
from livekit_auth_server.audit.trail import AuditTrail
from livekit_auth_server.process.clock import SystemClock
from support.records import RECORD


@dataclass
class Slow:
    """A sink that never gets its lines written."""

    async def record(self, _: object) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(("token", "withheld"), [("f" * 64, 1), ("", None)])
async def test_a_call_that_ends_while_its_line_is_written_counts_as_withheld(token: str, withheld: int | None) -> None:
    registry, sink = CollectorRegistry(), Slow()
    slow: Any = sink
    trail = AuditTrail(slow, SystemClock(), AuditMetrics(registry))
    call = asyncio.create_task(trail.record(replace(RECORD, token_sha256=token, dry_run=not token)))
    await asyncio.sleep(0)
    assert trail.waiting == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    def count(outcome: str) -> float | None:
        labels = {"method": RECORD.method, "outcome": outcome, "reason": ""}
        return registry.get_sample_value("livekit_auth_decisions_total", labels)

    assert count("issued" if token else "dry_run") == 1
    assert count("withheld") == withheld
    assert trail.waiting == 0
