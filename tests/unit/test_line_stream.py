"""A stream that nobody reads holds up nobody."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.adapters.line_stream import LineStream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, LineStream]]:
    reader, writer = os.pipe()
    yield reader, LineStream(writer, limit=200_000)
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_lines_arrive_in_order(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"one\n")
    stream.write(b"two\n")
    assert os.read(reader, 100) == b"one\ntwo\n"


def test_a_full_pipe_delays_lines_and_then_drops_them(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    line = b"x" * 999 + b"\n"
    for _ in range(400):  # 64 KiB in the pipe and 200,000 bytes in memory hold about 260
        stream.write(line)
    assert stream.dropped > 100
    seen = b""
    while len(seen) < (400 - stream.dropped) * len(line):
        seen += os.read(reader, 65536)
        stream.flush()
    assert set(seen.splitlines()) == {line[:-1]}


async def test_who_waits_for_a_line_gets_it_once_the_reader_reads(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"x" * 70_000 + b"\n")
    with pytest.raises(TimeoutError):
        await stream.write_through(b"first\n", 0.02)
    os.read(reader, 65536)
    await stream.write_through(b"second\n", 1)
    assert os.read(reader, 65536).endswith(b"\nfirst\nsecond\n")


async def test_a_reader_that_is_gone_fails_who_waits_and_nobody_else(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    os.close(reader)
    stream.write(b"lost\n")
    with pytest.raises(OSError, match="pipe"):
        await stream.write_through(b"x\n", 1)
    assert stream.dropped == 2


async def test_what_waits_is_given_a_moment_at_the_end(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"x" * 70_000 + b"\n")
    await stream.drain(0.02)
    os.read(reader, 65536)
    await stream.drain(0.02)
    assert os.read(reader, 65536).endswith(b"x\n")
