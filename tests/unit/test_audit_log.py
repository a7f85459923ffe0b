"""A decision is written before its token leaves, or nothing is issued."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest

from livekit_auth_server.adapters.audit_log import AuditLog
from livekit_auth_server.core.refusal import Reason, Refusal
from support.handlers import AuditWatch
from support.records import RECORD


async def test_each_record_is_a_line() -> None:
    stream = io.BytesIO()
    log = AuditLog(stream, AuditWatch())
    await log.record([RECORD])
    await log.record([replace(RECORD, room="a\nb\u2028"), RECORD])
    log.note('"kind":"denials","count":3')
    lines = stream.getvalue().decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "audit", "kind": "decision", **asdict(RECORD)},
        {"event": "audit", "kind": "decision", **asdict(RECORD), "room": "a\nb\u2028"},
        {"event": "audit", "kind": "decision", **asdict(RECORD)},
        {"event": "audit", "kind": "denials", "count": 3},
    ]
    assert stream.getvalue().endswith(b"\n")


async def test_a_record_is_flushed_before_the_answer() -> None:
    raw = io.BytesIO()
    buffered = io.BufferedWriter(raw, 1 << 20)  # type: ignore[arg-type]
    await AuditLog(buffered, AuditWatch()).record([RECORD])
    assert raw.getvalue().endswith(b"}\n")


class Full(io.BytesIO):
    """A stream on a full disk: it fails on the way out."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def closed() -> io.BytesIO:
    stream = io.BytesIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full(), closed()])
async def test_what_cant_be_recorded_stops_issuance(stream: io.BytesIO) -> None:
    log = AuditLog(stream, watch := AuditWatch())
    assert log.ready() == []
    with pytest.raises(Refusal) as caught:
        await log.record([RECORD])
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert "device" not in caught.value.message
    assert (log.ready(), watch.ups) == (["the audit trail can't be written to the log"], [False])
    log.note('"kind":"denials"')
    assert watch.lost == 1
    log.stream = io.BytesIO()
    await log.record([RECORD])
    assert (log.ready(), watch.ups) == ([], [False, True])
