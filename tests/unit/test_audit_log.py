"""A decision is written before its token leaves, or nothing is issued."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest

from livekit_auth_server.adapters.audit_log import AuditLog
from livekit_auth_server.core.audit import AuditRecord
from livekit_auth_server.core.refusal import Reason, Refusal

RECORD = AuditRecord(
    **{name: name for name in AuditRecord.__slots__ if name not in {"time", "ttl", "permitted", "dry_run"}},
    time=1,
    ttl=60,
    permitted=True,
    dry_run=False,
)


async def test_each_record_is_a_line() -> None:
    stream = io.BytesIO()
    log = AuditLog(stream)
    await log.record(RECORD)
    await log.record(replace(RECORD, room="a\nb\u2028", permitted=False))
    lines = stream.getvalue().decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "audit", **asdict(RECORD)},
        {"event": "audit", **asdict(RECORD), "room": "a\nb\u2028", "permitted": False},
    ]
    assert stream.getvalue().endswith(b"\n")


async def test_a_record_is_flushed_before_the_answer() -> None:
    raw = io.BytesIO()
    buffered = io.BufferedWriter(raw, 1 << 20)  # type: ignore[arg-type]
    await AuditLog(buffered).record(RECORD)
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
    with pytest.raises(Refusal) as caught:
        await AuditLog(stream).record(RECORD)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert "device" not in caught.value.message
