"""A copy for a collector: bounded, never waited for, and able to stop issuance only if it is required."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.audit import otlp
from livekit_auth_server.audit.metrics import CopyMetrics
from livekit_auth_server.audit.otlp import BATCH, MAX_NOTES, MAX_TEXT, QUEUE, AuditOtlp
from livekit_auth_server.core.refusal import Reason, Refusal
from support.fakes import FakeClock
from support.records import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livekit_auth_server.core.audit import AuditLine

PATIENCE = 5.0


class FakeExporter:
    """Takes batches, or has a problem with them; hangs until let go."""

    endpoint = "http://collector/v1/logs"

    def __init__(self) -> None:
        self.taken: list[AuditLine] = []
        self.sizes: list[int] = []
        self.problem = ""
        self.bad: AuditLine | None = None  # a line for which a batch is refused
        self.answers = threading.Event()
        self.answers.set()

    def send(self, lines: Sequence[AuditLine]) -> str:
        self.answers.wait(10)
        if self.bad in lines:
            return "HTTP status 413"
        if not self.problem:
            self.taken += lines
            self.sizes.append(len(lines))
        return self.problem

    def shutdown(self) -> None:
        self.answers.set()


class Copy:
    """The sink on a collector of its own."""

    def __init__(self, *, required: bool = False) -> None:
        self.registry, self.clock, self.exporter = CollectorRegistry(), FakeClock(), FakeExporter()
        exporter: Any = self.exporter
        self.sink = AuditOtlp(exporter, self.clock, CopyMetrics(self.registry), required=required, patience=PATIENCE)

    async def __aenter__(self) -> Self:
        await self.sink.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.exporter.answers.set()
        await self.sink.close()

    def count(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("livekit_auth_audit_otlp_records_total", {"outcome": outcome})

    @property
    def waiting(self) -> float | None:
        return self.registry.get_sample_value("livekit_auth_audit_otlp_waiting")

    async def tried(self) -> None:
        """A tick, and the end of the export that it begins."""
        self.sink.tick()
        await asyncio.wait_for(self.sink._idle.wait(), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.01)


async def unavailable(copy: Copy, count: int = 1) -> None:
    with pytest.raises(Refusal) as caught:
        await copy.sink.record([RECORD] * count)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE


async def test_lines_are_sent_in_order_each_second_and_counted() -> None:
    async with Copy() as copy:
        records = [replace(RECORD, decision_id=f"d{n}") for n in range(3)]
        await copy.sink.record(records[:2])
        copy.sink.note(records[2])
        assert (copy.exporter.taken, copy.waiting) == ([], 3)
        await copy.tried()
        assert (copy.exporter.taken, copy.waiting, copy.count("exported")) == (records, 0, 3)


async def test_a_full_batch_is_sent_at_once() -> None:
    async with Copy() as copy:
        await copy.sink.record([RECORD] * (2 * BATCH + 1))
        await until(lambda: copy.exporter.sizes == [BATCH, BATCH])
        assert copy.waiting == 1


async def test_a_hanging_collector_is_not_waited_for_and_the_queue_is_bounded() -> None:
    async with Copy() as copy:
        copy.exporter.answers.clear()
        with capture_logs() as log:
            await copy.sink.record([RECORD] * (QUEUE + 100))
            copy.sink.withhold(["d1"], "the call had ended")
            copy.clock.advance(60)
            for _ in range(20):
                copy.sink.tick()
        assert (copy.waiting, copy.count("dropped")) == (QUEUE, 101)
        assert [(line["event"], line["count"]) for line in log] == [
            ("audit records for the collector were dropped", 101)
        ]
        assert (copy.sink.ready(), copy.sink.stopped()) == ([], False)


async def test_denials_leave_half_of_the_queue_to_permits() -> None:
    async with Copy() as copy:
        copy.exporter.answers.clear()
        for _ in range(MAX_NOTES + 5):
            copy.sink.note(replace(RECORD, permitted=False))
        await copy.sink.record([RECORD] * (QUEUE - MAX_NOTES))
        assert (copy.waiting, copy.count("dropped")) == (QUEUE, 5)


@pytest.mark.parametrize("problem", ["ConnectionError", "ReadTimeout", "HTTP status 503", "HTTP status 429"])
async def test_a_batch_is_sent_again_when_the_collector_is_back(problem: str) -> None:
    async with Copy() as copy:
        copy.exporter.problem = problem
        await copy.sink.record([RECORD] * BATCH)
        with capture_logs() as log:
            for _ in range(3):
                await copy.tried()
            copy.exporter.problem = ""
            await copy.tried()
        assert (copy.exporter.sizes, copy.count("failed"), copy.count("exported")) == ([BATCH], 0, BATCH)
        assert [line["event"] for line in log] == [
            "audit records can't be exported",
            "audit records are exported again",
        ]
        assert log[0]["problem"] == problem


@pytest.mark.parametrize("required", [False, True])
async def test_one_line_that_is_refused_costs_no_other(*, required: bool) -> None:
    async with Copy(required=required) as copy:
        records = [replace(RECORD, decision_id=f"d{n}") for n in range(40)]
        copy.exporter.bad = records[17]
        await copy.sink.record(records)
        for _ in range(12):
            await copy.tried()
        if required:
            copy.clock.advance(PATIENCE + 1)
            assert "HTTP status 413, decision d17" in copy.sink.ready()[0]
            assert copy.exporter.taken == records[:17]
            copy.exporter.bad = None
            for _ in range(6):
                await copy.tried()
            assert (copy.exporter.taken, copy.sink.ready()) == (records, [])
        else:
            assert copy.exporter.taken == records[:17] + records[18:]
            assert (copy.waiting, copy.count("failed"), copy.count("exported")) == (0, 1, 39)


async def test_a_batch_that_is_refused_for_good_is_dropped_and_counted() -> None:
    async with Copy() as copy:
        copy.exporter.problem = "HTTP status 401"
        await copy.sink.record([RECORD] * 7)
        await copy.tried()
        assert (copy.waiting, copy.count("failed")) == (0, 7)


@pytest.mark.parametrize("problem", ["ConnectionError", "HTTP status 401", "rejected 1 records of a batch"])
async def test_a_required_collector_that_takes_nothing_stops_issuance_until_it_does(problem: str) -> None:
    async with Copy(required=True) as copy:
        copy.exporter.problem = problem
        await copy.sink.record([RECORD])
        await copy.tried()
        copy.clock.advance(PATIENCE)
        assert copy.sink.ready() == []
        copy.clock.advance(0.1)
        assert copy.sink.ready()[0].startswith(f"the audit trail's collector takes no records: {problem}")
        assert copy.sink.ready()[0].endswith("(http://collector/v1/logs)")
        assert copy.sink.stopped()
        copy.exporter.problem = ""
        await copy.tried()
        assert (copy.sink.ready(), copy.exporter.taken, copy.count("failed")) == ([], [RECORD], 0)


async def test_a_required_collector_that_hangs_stops_issuance() -> None:
    async with Copy(required=True) as copy:
        copy.exporter.answers.clear()
        await copy.sink.record([RECORD])
        copy.sink.tick()
        copy.clock.advance(PATIENCE + 0.1)
        assert copy.sink.ready() == [
            "the audit trail's collector takes no records: it hasn't answered for 5 s (http://collector/v1/logs)"
        ]


async def test_a_slow_collector_that_is_required_stops_nothing_while_it_takes_records() -> None:
    async with Copy(required=True) as copy:
        for _ in range(5):
            await copy.sink.record([RECORD])
            copy.clock.advance(PATIENCE - 0.1)
            assert copy.sink.ready() == []
            await copy.tried()


async def test_a_required_collector_loses_no_permit_of_a_full_queue() -> None:
    async with Copy(required=True) as copy:
        copy.exporter.answers.clear()
        await copy.sink.record([RECORD] * (QUEUE - 1))
        assert copy.sink.ready() == []
        await unavailable(copy, 2)
        await copy.sink.record([RECORD])
        copy.sink.withhold(["d1", "d2"], "the call had ended")
        assert copy.sink.stopped()
        assert (copy.waiting, copy.count("dropped")) == (QUEUE + 2, 0)
        copy.exporter.answers.set()
        await until(lambda: copy.waiting is not None and copy.waiting < BATCH)
        await copy.tried()
        assert len(copy.exporter.taken) == QUEUE + 2


async def test_what_is_queued_at_the_end_is_sent() -> None:
    async with Copy() as copy:
        await copy.sink.record([RECORD] * (BATCH + 3))
    assert len(copy.exporter.taken) == BATCH + 3


async def test_the_end_does_not_wait_for_a_hanging_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_LAST", 0.05)
    copy = Copy()
    await copy.sink.open()
    copy.exporter.answers.clear()
    await copy.sink.record([RECORD] * 3)
    with capture_logs() as log:
        await copy.sink.close()
    assert [(line["event"], line["count"]) for line in log] == [("audit records for the collector were dropped", 3)]


async def test_a_long_text_takes_little_memory_and_the_rest_of_the_record_stays() -> None:
    async with Copy() as copy:
        long = replace(RECORD, access="grants:" + "x" * 100_000)
        await copy.sink.record([long])
        await copy.tried()
        assert copy.exporter.taken == [replace(long, access=long.access[:MAX_TEXT])]
