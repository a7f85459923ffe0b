"""A stream that nobody reads holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.logs.nonblocking_stream import LineStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def test_what_is_written_at_once_ends_with_a_line_where_lines_fit(pipe: tuple[int, LineStream]) -> None:
    """So that workers which share a pipe never tear each other's lines."""
    reader, stream = pipe
    os.set_blocking(stream.descriptor, False)
    other = LineStream(stream.descriptor)
    batch = b"".join(b"%03d" % number + b"x" * 600 + b"\n" for number in range(200))
    stream.write(batch)  # more than the pipe takes
    seen = b""
    for _ in range(500):
        other.write(b"other\n")
        seen += os.read(reader, 5000)
        stream.flush()
    os.write(stream.descriptor, b"end\n")
    while not seen.endswith(b"end\n"):
        seen += os.read(reader, 65536)
    lines = seen.splitlines(keepends=True)
    assert b"".join(line for line in lines if line[:1].isdigit()) == batch
    assert {line for line in lines if not line[:1].isdigit()} == {b"other\n", b"end\n"}


def test_a_line_that_is_longer_than_that_arrives_too(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"short\n" + b"x" * 20_000 + b"\nshort\n")
    assert os.read(reader, 65536) == b"short\n" + b"x" * 20_000 + b"\nshort\n"


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
    assert os.read(reader, 65536).endswith(b"x\nsecond\n")


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


async def test_everybody_who_waits_hears_that_the_reader_is_gone(pipe: tuple[int, LineStream]) -> None:
    """A lost line once counted as written for all who waited behind the one that hit the error."""
    reader, stream = pipe
    stream.write(b"x" * 70_000 + b"\n")
    waiting = [asyncio.create_task(stream.write_through(b"%d\n" % number, 5)) for number in range(5)]
    await asyncio.sleep(0.02)
    os.close(reader)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, OSError) for outcome in outcomes)


async def test_a_line_that_timed_out_isnt_written_later(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    stream.write(b"x" * 70_000 + b"\n")
    with pytest.raises(TimeoutError):
        await stream.write_through(b"late\n", 0.02)
    os.read(reader, 65536)
    await stream.write_through(b"next\n", 1)
    assert os.read(reader, 65536).endswith(b"x\nnext\n")


def test_what_follows_a_torn_line_is_whole(tmp_path: Path) -> None:
    """A file whose size limit cuts a line: the part that was written is ended before anything else is."""
    path = tmp_path / "log"
    program = """
import asyncio, os, resource, signal, sys
from livekit_auth_server.logs.nonblocking_stream import LineStream
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
stream = LineStream(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        await stream.write_through(b"torn line\\n", 1)
    except OSError:
        print("refused")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await stream.write_through(b"whole\\n", 1)
asyncio.run(main())
""".replace("\\\\n", "\\n")
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert path.read_bytes() == b"torn\nwhole\n"


def test_lanes_take_turns_and_never_tear_each_others_lines(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    lane = stream.lane()
    os.set_blocking(stream.descriptor, False)
    stream.write(b"x" * 70_000 + b"\n")  # fills the pipe, and is within a line
    for number in range(50):
        stream.write(b"first %d\n" % number)
        lane.write(b"long " + b"y" * 6000 + b"\n" if number == 3 else b"second %d\n" % number)
    seen = b""
    while seen.count(b"\n") < 101:
        seen += os.read(reader, 1000)
        lane.flush()
    lines = seen.splitlines()[1:]
    assert [line for line in lines if line.startswith(b"first")] == [b"first %d" % number for number in range(50)]
    assert len([line for line in lines if line.startswith(b"second")]) == 49
    assert lines.count(b"long " + b"y" * 6000) == 1
    assert [line[:5] for line in lines[:6]] == [b"secon", b"first"] * 3


async def test_an_error_loses_the_lines_of_every_lane(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    lane = stream.lane()
    stream.write(b"x" * 70_000 + b"\n")
    waiting = asyncio.create_task(lane.write_through(b"audit\n", 5))
    await asyncio.sleep(0.02)
    os.close(reader)
    with pytest.raises(OSError, match="pipe"):
        await waiting
    assert (stream.dropped, lane.dropped) == (1, 1)


async def test_draining_waits_for_every_lane(pipe: tuple[int, LineStream]) -> None:
    reader, stream = pipe
    lane = stream.lane()
    lane.write(b"x" * 70_000 + b"\n")
    await stream.drain(0.02)
    os.read(reader, 65536)
    await stream.drain(5)
    assert os.read(reader, 65536).endswith(b"x\n")
