"""No token before its line is on the disk; a disk that fails or hangs stops issuance and nothing else."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.audit import audit_file
from livekit_auth_server.audit.audit_file import AuditFile
from livekit_auth_server.audit.chained_file import ChainedFile
from livekit_auth_server.audit.open import open_trail
from livekit_auth_server.audit.sink import SinkError
from livekit_auth_server.audit.trail import AuditTrail
from livekit_auth_server.audit.verify import verify_files
from livekit_auth_server.config.sections import AuditSettings
from livekit_auth_server.config.settings import Settings
from livekit_auth_server.core.chain import Head
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.logs.nonblocking_stream import LineStream
from livekit_auth_server.process.clock import SystemClock
from support.fakes import AuditWatch
from support.records import RECORD

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 0.3


class Disk:
    """fdatasync that counts, hangs until let go, or fails."""

    def __init__(self) -> None:
        self.syncs = 0
        self.answers, self.hanging = threading.Event(), threading.Event()
        self.answers.set()
        self.failure: OSError | None = None

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if not self.answers.is_set():
            self.hanging.set()
        self.answers.wait(10)
        if self.failure is not None:
            raise self.failure
        os.fdatasync(descriptor)

    def hang(self) -> None:
        self.hanging.clear()
        self.answers.clear()


class Sink:
    """An AuditFile on a disk of its own, and what it says of itself."""

    def __init__(self, folder: Path) -> None:
        self.path, self.disk, self.watch = folder / "audit.0.jsonl", Disk(), AuditWatch()
        self.clock = SystemClock()
        self.file = ChainedFile(self.path, self.clock, sync=self.disk.sync)
        self.audit = AuditFile(self.file, self.clock, self.watch, PATIENCE)

    async def __aenter__(self) -> Self:
        await self.audit.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.disk.answers.set()
        self.disk.failure = None
        await self.audit.close()
        verdict = verify_files([self.path], [self.file.head] if self.file.head else [])
        assert verdict.problems == []

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of this kind that are in the file; the last one may be half written."""
        written, _, _ = self.path.read_text().rpartition("\n")
        return [line for line in map(json.loads, written.splitlines()) if line["kind"] == kind]

    def decisions(self) -> list[str]:
        return [line["decision_id"] for line in self.lines("decision")]


def record(decision: str):
    return replace(RECORD, decision_id=decision)


def kept_in(folder: Path) -> Settings:
    """Settings of which the trail's are set."""
    return Settings.model_construct(audit=AuditSettings(path=folder, patience=1.0))


async def hung(sink: Sink) -> asyncio.Task[None]:
    """A call whose sync hangs."""
    sink.disk.hang()
    call = asyncio.create_task(sink.audit.record([record("hung")]))
    await asyncio.to_thread(sink.disk.hanging.wait, 5)
    return call


async def unavailable(call: Any) -> None:
    with pytest.raises(Refusal) as caught:
        await call
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert caught.value.message == "the decision can't be recorded, so nothing is issued"


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(0.01)


async def test_record_returns_when_its_line_is_synced(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        call = await hung(sink)
        await asyncio.sleep(0.05)
        assert not call.done()
        sink.disk.answers.set()
        await call
        assert sink.decisions() == ["hung"]


async def test_calls_that_come_together_share_a_sync(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        before = sink.disk.syncs
        await asyncio.gather(*(sink.audit.record([record(f"d{n}")]) for n in range(200)))
        assert sink.disk.syncs - before <= 2
        assert sink.decisions() == [f"d{n}" for n in range(200)]


async def test_a_batch_of_records_is_written_together(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        await sink.audit.record([record(f"d{n}") for n in range(500)])
        assert len(sink.decisions()) == 500


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "Read-only file system"),
        (errno.EIO, "Input/output error"),
    ],
)
async def test_a_disk_that_fails_stops_issuance_until_it_works(tmp_path: Path, number: int, why: str) -> None:
    async with Sink(tmp_path) as sink:
        sink.disk.failure = OSError(number, os.strerror(number))
        with capture_logs() as log:
            for _ in range(5):
                await unavailable(sink.audit.record([record("lost")]))
        path = tmp_path / "audit.0.jsonl"
        assert [(line["why"], line["path"]) for line in log] == [(why, str(path))]  # said once, loudly
        assert log[0]["log_level"] == "error"
        assert sink.audit.ready() == [f"the audit trail can't be written: {why} ({path})"]
        sink.disk.failure = None
        await sink.audit.record([record("kept")])
        assert sink.audit.ready() == []
        assert sink.decisions() == ["kept"]


async def test_without_a_call_it_recovers_too(tmp_path: Path) -> None:
    """A server that isn't ready gets no calls."""
    async with Sink(tmp_path) as sink:
        sink.disk.failure = OSError(errno.ENOSPC, "No space left on device")
        await unavailable(sink.audit.record([record("lost")]))
        sink.audit.tick()
        await asyncio.sleep(0.05)
        assert sink.audit.ready()
        sink.disk.failure = None
        sink.audit.tick()
        await until(lambda: not sink.audit.ready())


async def test_a_hung_disk_is_waited_for_as_long_as_the_patience_reaches(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        loop = asyncio.get_running_loop()
        started = loop.time()
        call = await hung(sink)
        waiting = asyncio.create_task(sink.audit.record([record("waiting")]))
        await unavailable(call)
        assert PATIENCE - 0.05 < loop.time() - started < PATIENCE + 0.3
        await unavailable(waiting)
        started = loop.time()
        await unavailable(sink.audit.record([record("refused")]))  # at once: it is known to hang
        assert loop.time() - started < 0.1
        assert sink.audit.ready()[0].startswith("the audit trail can't be written: the disk hasn't answered for 0.3 s")
        sink.disk.answers.set()
        await until(lambda: not sink.audit.ready())
        await sink.audit.record([record("after")])
        assert sink.decisions() == ["hung", "after"]  # what waited and gave up isn't written


async def test_a_line_whose_call_gave_up_is_followed_by_one_that_says_so(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        await unavailable(await hung(sink))
        sink.disk.answers.set()
        await until(lambda: sink.lines("withheld"))
        assert [line["decision_id"] for line in sink.lines("withheld")] == ["hung"]


async def test_a_call_that_is_cancelled_before_its_line_is_written_leaves_none(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        first = await hung(sink)
        second = asyncio.create_task(sink.audit.record([record("cancelled")]))
        await asyncio.sleep(0.01)
        second.cancel()
        sink.disk.answers.set()
        await first
        await sink.audit.record([record("after")])
        assert second.cancelled()
        assert sink.decisions() == ["hung", "after"]
        assert sink.lines("withheld") == []


async def test_a_call_that_is_cancelled_while_its_line_is_written_is_withheld(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        call = await hung(sink)
        call.cancel()
        await asyncio.sleep(0)
        sink.disk.answers.set()
        await until(lambda: sink.lines("withheld"))
        assert (sink.decisions(), call.cancelled()) == (["hung"], True)


async def test_a_call_that_is_cancelled_just_after_its_line_was_written_is_withheld(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        call: asyncio.Task[None] | None = None
        real = sink.audit._succeeded

        def succeeded(batch: Any) -> None:
            real(batch)
            assert call is not None
            call.cancel()

        sink.audit._succeeded = succeeded  # type: ignore[method-assign]
        call = asyncio.create_task(sink.audit.record([record("late")]))
        with pytest.raises(asyncio.CancelledError):
            await call
        sink.audit._succeeded = real  # type: ignore[method-assign]
        await until(lambda: sink.lines("withheld"))
        assert sink.decisions() == ["late"]


async def test_a_withheld_line_whose_write_fails_is_written_when_the_disk_is_back(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        await sink.audit.record([record("revoked")])
        sink.disk.failure = OSError(errno.ENOSPC, "no space left")
        sink.audit.withhold(["revoked"], "CERTIFICATE_REVOKED")
        await until(sink.audit.ready)
        sink.disk.failure = None
        sink.audit.tick()
        await until(lambda: sink.lines("withheld"))
        assert [line["decision_id"] for line in sink.lines("withheld")] == ["revoked"]
        assert (sink.watch.lost, sink.lines("dropped")) == (0, [])


async def test_a_dry_run_has_no_token_to_withhold(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        sink.disk.hang()
        call = asyncio.create_task(sink.audit.record([replace(record("dry"), dry_run=True, token_sha256="")]))
        await asyncio.to_thread(sink.disk.hanging.wait, 5)
        call.cancel()
        sink.disk.answers.set()
        await sink.audit.record([record("after")])
        assert sink.lines("withheld") == []


async def test_denials_arent_waited_for_and_stay_in_order(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        for number in range(3):
            sink.audit.note(record(f"n{number}"))
        await sink.audit.record([record("permit")])
        sink.audit.note(record("n3"))
        await until(lambda: len(sink.decisions()) == 5)
        assert sink.decisions() == ["n0", "n1", "n2", "permit", "n3"]


async def test_denials_that_a_hung_disk_cant_take_are_bounded_counted_and_told(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        await unavailable(await hung(sink))
        for number in range(audit_file.MAX_NOTES + 500):
            sink.audit.note(record(f"n{number}"))
        assert sink.watch.lost == 500
        assert len(sink.audit._pending) == audit_file.MAX_NOTES
        sink.disk.answers.set()
        await until(lambda: sink.lines("dropped"))
        assert [line["denials"] for line in sink.lines("dropped")] == [500]
        assert len(sink.decisions()) == audit_file.MAX_NOTES + 1


async def test_denials_of_a_failed_write_are_counted_and_told(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        sink.disk.failure = OSError(errno.EIO, "Input/output error")
        sink.audit.note(record("denied"))
        await until(lambda: sink.watch.lost == 1)
        sink.disk.failure = None
        await sink.audit.record([record("after")])
        await until(lambda: sink.lines("dropped"))


async def test_the_head_goes_to_the_log_at_start_on_the_way_and_at_stop(tmp_path: Path) -> None:
    with capture_logs() as log:
        async with Sink(tmp_path) as sink:
            for _ in range(3):
                await sink.audit.record([record("d")] * 500)
            sink.audit.tick()  # not due yet
            sink.audit._exported_at -= 10
            sink.audit.tick()
            sink.audit.tick()
            await sink.audit.record([record("d")])
    heads = [Head.parse(line["head"]) for line in log if line["event"] == "audit head"]
    assert [head.sequence for head in heads] == [1, 1001, 1501, 1502] == sink.watch.heads
    assert verify_files([sink.path], heads).problems == []


async def test_an_idle_trail_repeats_no_head(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        for _ in range(3):
            sink.audit._exported_at -= 10
            sink.audit.tick()
        assert sink.watch.heads == [1]


async def test_an_unexpected_fault_of_the_writer_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        real, sink.file.write = sink.file.write, lambda *_: 1 // 0
        await unavailable(sink.audit.record([record("d")]))
        sink.file.write = real
        await sink.audit.record([record("e")])


async def test_a_disk_that_hangs_at_start_is_an_error(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.disk.hang()
    with capture_logs() as log, pytest.raises(SinkError, match=r"the disk hasn't answered for 0\.3 s"):
        await sink.audit.open()
    sink.disk.answers.set()
    assert log == []


async def test_a_folder_that_went_away_shows_without_a_call_and_so_does_its_return(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    async with Sink(folder) as sink:
        folder.rename(tmp_path / "elsewhere")
        sink.audit.tick()
        await until(sink.audit.ready)
        assert sink.audit.ready()[0].startswith("the audit trail can't be written: ")
        (tmp_path / "elsewhere").rename(folder)
        sink.audit.tick()
        await until(lambda: not sink.audit.ready())


async def test_looking_writes_nothing_and_syncs_nothing(tmp_path: Path) -> None:
    async with Sink(tmp_path) as sink:
        size, syncs = sink.path.stat().st_size, sink.disk.syncs
        for _ in range(5):
            sink.audit.tick()
            await asyncio.sleep(0.02)
        assert (sink.path.stat().st_size, sink.disk.syncs) == (size, syncs)
        assert sink.audit.ready() == []


async def test_a_folder_that_cant_be_used_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/audit\.0\.jsonl: the audit trail can't be kept here: "):
        await open_trail(kept_in(tmp_path / "file"), SystemClock(), CollectorRegistry(), stream=LineStream(2))


async def test_the_metrics_say_how_the_trail_is(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    trail = await open_trail(kept_in(tmp_path), SystemClock(), registry, stream=LineStream(2))
    for _ in range(30):
        trail.deny(replace(RECORD, permitted=False, reason="ROOM_NOT_PERMITTED"))
    value = registry.get_sample_value
    assert value("livekit_auth_audit_up") == 1
    assert value("livekit_auth_audit_sequence") == 1
    assert value("livekit_auth_audit_coalesced_denials_total") == 20
    trail.observer.dropped(3)
    assert value("livekit_auth_audit_dropped_denials_total") == 3
    await trail.close()
    assert value("livekit_auth_audit_sequence") == 12  # ten lines and a counted one


async def test_workers_have_files_of_their_own(tmp_path: Path) -> None:
    settings = kept_in(tmp_path / "audit")
    trails = [
        await open_trail(settings, SystemClock(), CollectorRegistry(), stream=LineStream(2), worker=worker)
        for worker in (0, 1)
    ]
    for trail in trails:
        await trail.record(RECORD)
        await trail.close()
    verdict = verify_files([tmp_path / "audit"])
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["audit.0.jsonl", "audit.1.jsonl"]
    assert (len(verdict.chains), verdict.problems) == (2, [])


async def test_a_trail_counts_floods_and_writes_the_counts_out_at_the_end(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    trail = AuditTrail([sink.audit], sink.clock, sink.watch)
    await trail.open()
    for _ in range(100):
        trail.deny(replace(RECORD, permitted=False, reason="ROOM_NOT_PERMITTED"))
        trail.deny(replace(RECORD, permitted=False, reason="CALLER_NOT_LISTED"), listed=False)
    await trail.close()
    counted = sink.lines("denials")
    assert len(sink.decisions()) + sum(line["count"] for line in counted) == 200
    assert sink.watch.shared == sum(line["count"] for line in counted) >= 150
    assert {line["listed"] for line in counted} == {True, False}
    assert trail.ready() == []
