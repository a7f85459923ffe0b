"""A decision is written before its token leaves, or nothing is issued."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth_server.audit.audit_log import AuditLog
from livekit_auth_server.core.counted_denials import CountedDenials
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.logs.nonblocking_stream import LineStream
from support.fakes import AuditWatch, FakeClock
from support.records import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DENIALS = CountedDenials("spiffe://a/b", 1, 2, "r", count=3)


async def test_each_record_is_a_line_before_the_answer(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = AuditLog(LineStream(file), FakeClock(), AuditWatch())
    await log.record([RECORD])
    await log.record([replace(RECORD, room="a\nb\u2028"), RECORD])
    log.note(DENIALS)
    os.close(file)
    written = (tmp_path / "log").read_text("ascii")
    assert [json.loads(line) for line in written.splitlines()] == [
        {"event": "audit", "kind": "decision", **asdict(RECORD)},
        {"event": "audit", "kind": "decision", **asdict(RECORD), "room": "a\nb\u2028"},
        {"event": "audit", "kind": "decision", **asdict(RECORD)},
        {"event": "audit", **DENIALS.members()},
    ]
    assert written.endswith("\n")


async def test_lines_of_one_of_several_workers_carry_its_number(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = AuditLog(LineStream(file), FakeClock(), AuditWatch(), 3)
    await log.record([RECORD])
    log.note(DENIALS)
    os.close(file)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text("ascii").splitlines()]
    assert lines[0] == {"event": "audit", "worker": 3, "kind": "decision", **asdict(RECORD)}
    assert lines[1] == {"event": "audit", "worker": 3, **DENIALS.members()}


async def refused(log: AuditLog) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await log.record([RECORD])
    return caught.value


async def test_a_full_disk_stops_issuance() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log = AuditLog(LineStream(full), FakeClock(), watch := AuditWatch())
    assert log.ready() == []
    refusal = await refused(log)
    os.close(full)
    assert refusal.reason is Reason.AUDIT_UNAVAILABLE
    assert "device" not in refusal.message
    assert log.ready() == ["the audit trail can't be written to the log: the disk is full"]
    assert watch.lost == 1, "the line that says that the token was withheld"


@pytest.fixture
def pipe() -> Iterator[tuple[int, LineStream]]:
    """A pipe's reading end, and a stream to it."""
    reader, writer = os.pipe()
    yield reader, LineStream(writer)
    os.close(reader)
    os.close(writer)


def read_lines(reader: int, until: Callable[[bytes], bool], stream: LineStream) -> list[dict[str, Any]]:
    """What a slow reader gets, 4 KiB at a time, until it has seen what it looks for."""
    seen = b""
    os.set_blocking(reader, False)
    for _ in range(2000):
        with contextlib.suppress(BlockingIOError):
            seen += os.read(reader, 4096)
        stream.flush()
        if until(seen):
            return [json.loads(line) for line in seen.splitlines()[:-1]]
    raise AssertionError("it didn't come")


async def test_a_flood_of_other_lines_neither_stops_issuance_nor_drops_audit_lines(
    pipe: tuple[int, LineStream],
) -> None:
    reader, stream = pipe
    log = AuditLog(stream, FakeClock(), watch := AuditWatch(), patience=10)
    while not stream.dropped:
        stream.write(b'{"event":"call"}' + b" " * 500 + b"\n")
    recording = asyncio.create_task(log.record([RECORD]))
    await asyncio.sleep(0)
    log.note(DENIALS)
    got = read_lines(reader, lambda seen: b'"kind":"decision"' in seen and b'"kind":"denials"' in seen, stream)
    await recording
    assert len(got) < 400, "others don't wait for 2,000 lines that came first: the pipe's own 128 and a few"
    assert (watch.lost, log.ready()) == (0, [])


async def test_a_flood_of_audit_lines_neither_drops_other_lines_nor_stops_issuance(
    pipe: tuple[int, LineStream],
) -> None:
    reader, stream = pipe
    log = AuditLog(stream, FakeClock(), watch := AuditWatch(), patience=10)
    while not watch.lost:
        log.note(replace(RECORD, permitted=False))
    stream.write(b'{"event":"serving"}\n')
    recording = asyncio.create_task(log.record([RECORD]))
    await asyncio.sleep(0)
    read_lines(reader, lambda seen: b'"event":"serving"' in seen and b'"permitted":true' in seen, stream)
    await recording
    assert stream.dropped == 0


async def test_a_call_that_ends_after_its_line_went_out_is_withheld(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"x" * 65_536 + b"\n")
    recording = asyncio.create_task(AuditLog(stream, FakeClock(), AuditWatch(), patience=10).record([RECORD]))
    await asyncio.sleep(0)
    os.read(reader, 65_537)
    stream.flush()
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    stream.flush()
    written = os.read(reader, 65_536)
    assert written.index(b'"kind":"decision"') < written.index(b'"kind":"withheld"')


async def test_a_pipe_that_nobody_reads_stops_issuance_until_somebody_does() -> None:
    reader, writer = os.pipe()
    try:
        stream = LineStream(writer)
        stream.write(b"x" * 70_000)
        log = AuditLog(stream, FakeClock(), AuditWatch(), patience=0.02)
        assert (await refused(log)).reason is Reason.AUDIT_UNAVAILABLE
        os.read(reader, 65536)
        await log.record([RECORD])
        assert log.ready() == []
        assert b'"kind":"withheld"' in os.read(reader, 65536)
    finally:
        os.close(reader)
        os.close(writer)
