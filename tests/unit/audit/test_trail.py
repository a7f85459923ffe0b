"""A permit is recorded when every sink has it; a sink that refuses leaves no token without a withheld line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from livekit_auth_server.audit.metrics import AuditMetrics
from livekit_auth_server.audit.sink import unavailable
from livekit_auth_server.audit.trail import AuditTrail
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.process.clock import SystemClock
from support.fakes import AuditWatch, FakeClock
from support.records import RECORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditLine, AuditRecord


@dataclass
class FakeSink:
    """Keeps what it is given, in one list with its neighbours."""

    name: str
    seen: list[tuple[str, str]]
    problem: str = ""
    refuses: bool = False
    hanging: asyncio.Event | None = None
    withheld: list[tuple[str, str]] = field(default_factory=list)

    def stopped(self) -> bool:
        return bool(self.problem)

    def ready(self) -> list[str]:
        return [self.problem] if self.problem else []

    async def record(self, records: Sequence[AuditRecord]) -> None:
        if self.hanging is not None:
            await self.hanging.wait()
        if self.refuses:
            raise unavailable()
        self.seen += [(self.name, record.decision_id) for record in records]

    def note(self, line: AuditLine) -> None:
        self.seen.append((self.name, line.members()["kind"]))

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        self.withheld += [(decision, why) for decision in decisions]

    async def open(self) -> None:
        """Nothing to open."""

    def tick(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self.seen.append((self.name, "closed"))


ISSUED, DRY = replace(RECORD, decision_id="d1"), replace(RECORD, decision_id="d2", dry_run=True, token_sha256="")


class Trail:
    """A trail with two sinks."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.first, self.second = FakeSink("file", self.seen), FakeSink("copy", self.seen)
        self.watch = AuditWatch()
        self.trail = AuditTrail([self.first, self.second], FakeClock(), self.watch)


async def refused(trail: Trail) -> None:
    with pytest.raises(Refusal) as caught:
        await trail.trail.record(ISSUED, DRY)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert (trail.watch.refused, trail.watch.decisions, trail.trail.waiting) == ([ISSUED, DRY], [], 0)


async def test_every_sink_gets_a_permit_in_their_order() -> None:
    trail = Trail()
    await trail.trail.record(ISSUED, DRY)
    assert trail.seen == [("file", "d1"), ("file", "d2"), ("copy", "d1"), ("copy", "d2")]
    assert trail.watch.decisions == [ISSUED, DRY]


async def test_a_sink_that_is_stopped_leaves_no_line_in_any() -> None:
    trail = Trail()
    trail.second.problem = "the collector takes nothing"
    await refused(trail)
    assert (trail.seen, trail.first.withheld) == ([], [])
    assert trail.trail.ready() == ["the collector takes nothing"]


async def test_a_sink_that_refuses_withholds_the_tokens_in_the_sinks_before_it() -> None:
    trail = Trail()
    trail.second.refuses = True
    await refused(trail)
    assert trail.first.withheld == [("d1", "another sink refused it")]
    assert trail.second.withheld == []


async def test_the_first_sink_that_refuses_keeps_the_lines_from_the_others() -> None:
    trail = Trail()
    trail.first.refuses = True
    await refused(trail)
    assert (trail.seen, trail.first.withheld) == ([], [])


async def test_a_call_that_ends_between_two_sinks_is_withheld() -> None:
    trail = Trail()
    trail.second.hanging = asyncio.Event()
    call = asyncio.create_task(trail.trail.record(ISSUED))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert trail.first.withheld == [("d1", "the call had ended")]


async def test_denials_and_withheld_lines_go_to_every_sink() -> None:
    trail = Trail()
    await trail.trail.open()
    for _ in range(12):
        trail.trail.deny(replace(RECORD, permitted=False, reason="ROOM_NOT_PERMITTED"))
    trail.trail.withhold([ISSUED], "CERTIFICATE_REVOKED")
    await trail.trail.close()
    for sink in (trail.first, trail.second):
        kinds = [kind for name, kind in trail.seen if name == sink.name]
        assert {"decision", "denials", "closed"} >= set(kinds)
        assert (kinds.count("denials") <= 1, kinds[-1]) == (True, "closed")
        assert sink.withheld == [("d1", "CERTIFICATE_REVOKED")]


# A call that ends while its line is written


@dataclass
class Slow:
    """A sink that never gets its lines written."""

    def stopped(self) -> bool:
        return False

    async def record(self, _: object) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(("token", "withheld"), [("f" * 64, 1), ("", None)])
async def test_a_call_that_ends_while_its_line_is_written_counts_as_withheld(token: str, withheld: int | None) -> None:
    registry, sink = CollectorRegistry(), Slow()
    slow: Any = sink
    trail = AuditTrail([slow], SystemClock(), AuditMetrics(registry))
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
