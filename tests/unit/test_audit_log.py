"""A decision is written before its token leaves, or nothing is issued."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.adapters.audit_log import AuditLog
from livekit_auth_server.adapters.line_stream import LineStream
from livekit_auth_server.core.audit import AuditRecord
from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from pathlib import Path

RECORD = AuditRecord(
    **{name: name for name in AuditRecord.__slots__ if name not in {"time", "ttl", "permitted", "dry_run"}},
    time=1,
    ttl=60,
    permitted=True,
    dry_run=False,
)


async def test_each_record_is_a_line_before_the_answer(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = AuditLog(LineStream(file))
    await log.record(RECORD)
    await log.record(replace(RECORD, room="a\nb\u2028", permitted=False))
    os.close(file)
    written = (tmp_path / "log").read_text("ascii")
    assert [json.loads(line) for line in written.splitlines()] == [
        {"event": "audit", **asdict(RECORD)},
        {"event": "audit", **asdict(RECORD), "room": "a\nb\u2028", "permitted": False},
    ]
    assert written.endswith("\n")


async def refused(stream: LineStream) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await AuditLog(stream, patience=0.02).record(RECORD)
    return caught.value


async def test_a_full_disk_stops_issuance() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    refusal = await refused(LineStream(full))
    os.close(full)
    assert refusal.reason is Reason.AUDIT_UNAVAILABLE
    assert "device" not in refusal.message


async def test_a_pipe_that_nobody_reads_stops_issuance() -> None:
    reader, writer = os.pipe()
    try:
        stream = LineStream(writer)
        stream.write(b"x" * 70_000)
        assert (await refused(stream)).reason is Reason.AUDIT_UNAVAILABLE
        os.read(reader, 65536)
        await AuditLog(stream).record(RECORD)
    finally:
        os.close(reader)
        os.close(writer)
