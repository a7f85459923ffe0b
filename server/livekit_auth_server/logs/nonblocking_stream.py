"""Lines to a stream that may be a pipe without a reader: writing never blocks the server.

A pipe's reader that stops would otherwise stop every call, and SIGTERM too. So nothing is written unless the operating
system says that it takes it at once. Lines wait in bounded memory; lines that don't fit are dropped and counted. Code
that must know that a line was taken can wait for it without blocking anything else, and is never told so of a line that
was lost or torn.

Lines that others must not crowd out have a lane with memory of its own; a slow reader gets lines of every lane in turn.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from dataclasses import dataclass, field

LIMIT = 1024 * 1024  # bytes that may wait in a lane
_ATOMIC = select.PIPE_BUF  # bytes that a pipe takes at once when poll says that it takes any (POSIX write)
_PAUSE = 0.005  # seconds between looks while the reader is behind


@dataclass(slots=True, eq=False)
class _Line:
    data: bytes
    written: int = 0
    lost: OSError | None = None

    @property
    def taken(self) -> bool:
        return self.written == len(self.data)

    @property
    def within(self) -> bool:
        """Whether another lane's line would interrupt one of its lines."""
        return 0 < self.written < len(self.data) and self.data[self.written - 1] != _LINE_BREAK


_LINE_BREAK = ord("\n")


@dataclass(slots=True, eq=False)
class _Outlet:
    """The descriptor that lanes share, in turns."""

    descriptor: int
    lanes: deque[LineStream] = field(default_factory=deque)  # the next one first
    torn: bool = False
    poll: select.poll = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        self.poll.register(self.descriptor, select.POLLOUT)

    def push(self) -> None:
        """Writes as much as is taken at once. Lines that can't be written are lost, and `write_through` raises."""
        while (line := self._next()) is not None and self.poll.poll(0):
            try:
                if self.torn:
                    os.write(self.descriptor, b"\n")  # what follows a torn line is whole
                    self.torn = False
                    continue
                line.written += os.write(self.descriptor, _piece(line))
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error)
                return
            if line.taken:
                self.lanes[0].taken()
            if not line.within:
                self.lanes.rotate(-1)

    def waiting(self) -> bool:
        return any(lane.lines for lane in self.lanes)

    def _next(self) -> _Line | None:
        """The next line: of the first lane that has one, which becomes the first lane."""
        for _ in range(len(self.lanes)):
            if self.lanes[0].lines:
                return self.lanes[0].lines[0]
            self.lanes.rotate(-1)
        return None

    def _lose(self, error: OSError) -> None:
        self.torn = self.torn or any(lane.lines and lane.lines[0].within for lane in self.lanes)
        for lane in self.lanes:
            lane.lose(error)


class LineStream:
    """Lines to a file descriptor. `limit` is how many bytes may wait; `dropped` counts lines that didn't arrive."""

    def __init__(self, descriptor: int, limit: int = LIMIT, outlet: _Outlet | None = None) -> None:
        self.descriptor, self.limit, self.dropped = descriptor, limit, 0
        self.lines: deque[_Line] = deque()
        self._size = 0
        self._outlet = outlet or _Outlet(descriptor)
        self._outlet.lanes.append(self)

    def lane(self, limit: int = LIMIT) -> LineStream:
        """Another stream to the same descriptor, with a memory of its own."""
        return LineStream(self.descriptor, limit, self._outlet)

    def write(self, line: bytes) -> None:
        """Hands over whole lines; never raises: a log that can't be written must not fail a call."""
        self._add(line)
        self._outlet.push()

    def flush(self) -> None:
        """Tries to write what waits, in every lane."""
        self._outlet.push()

    async def write_through(self, data: bytes, patience: float) -> None:
        """Returns when the stream has taken the whole line. Raises TimeoutError after `patience` seconds, or OSError.

        After a TimeoutError the line won't be written, unless a part of it already was.
        """
        line = self._add(data)
        if line is None:
            raise TimeoutError("the stream's reader is too far behind")
        self._outlet.push()
        try:
            async with asyncio.timeout(patience):
                while not line.taken and line.lost is None:
                    await asyncio.sleep(_PAUSE)
                    self._outlet.push()
        finally:
            self._withdraw(line)
        if line.lost is not None:
            raise line.lost

    async def drain(self, patience: float) -> None:
        """Gives the reader `patience` seconds to take what waits, in every lane."""
        end = time.monotonic() + patience
        self._outlet.push()
        while self._outlet.waiting() and time.monotonic() < end:
            await asyncio.sleep(_PAUSE)
            self._outlet.push()

    def taken(self) -> None:
        """The first line has been written."""
        self._size -= len(self.lines.popleft().data)

    def lose(self, error: OSError) -> None:
        """Nothing that waits can be written."""
        self.dropped += len(self.lines)
        for line in self.lines:
            line.lost = error
        self.lines.clear()
        self._size = 0

    def _add(self, data: bytes) -> _Line | None:
        if self._size + len(data) > self.limit:
            self.dropped += 1
            return None
        line = _Line(data)
        self.lines.append(line)
        self._size += len(data)
        return line

    def _withdraw(self, line: _Line) -> None:
        """Takes back a line of which nothing was written."""
        if line.written == 0 and line.lost is None:
            self.lines.remove(line)
            self._size -= len(line.data)


def _piece(line: _Line) -> memoryview:
    """What is written at once: complete lines if they fit, so that other writers' lines don't interrupt one."""
    end = min(line.written + _ATOMIC, len(line.data))
    if end < len(line.data):
        end = line.data.rfind(b"\n", line.written, end) + 1 or end
    return memoryview(line.data)[line.written : end]
