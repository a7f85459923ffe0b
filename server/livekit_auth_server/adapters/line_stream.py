"""Lines to a stream that may be a pipe which nobody reads: writing never blocks the server.

A pipe's reader that stops would otherwise stop every call with it, SIGTERM included. So nothing is written unless the
system says that it can be taken at once: lines wait in a bounded memory, and what doesn't fit there is dropped and
counted. Who needs to know that a line was taken waits for that line, without holding up anybody else, and is never told
so of a line that was lost or torn.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False, weakref_slot=True)
class LineStream:
    """Lines to a file descriptor. `limit` is how many bytes may wait; `dropped` counts lines that didn't arrive."""

    descriptor: int
    limit: int = 1024 * 1024
    dropped: int = 0
    _lines: deque[_Line] = field(default_factory=deque)
    _size: int = 0
    _torn: bool = False
    _poll: select.poll = field(init=False)

    def __post_init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Hands over whole lines; never raises: a log that can't be written must not fail a call."""
        self._add(line)
        self._push()

    def flush(self) -> None:
        """Tries to hand on what waits."""
        self._push()

    async def write_through(self, data: bytes, patience: float) -> None:
        """Returns when the stream has taken the whole line. Raises TimeoutError after `patience` seconds, or OSError.

        After a TimeoutError the line won't be written, unless a part of it already was.
        """
        line = self._add(data)
        if line is None:
            raise TimeoutError("the stream's reader is too far behind")
        self._push()
        try:
            async with asyncio.timeout(patience):
                while not line.taken and line.lost is None:
                    await asyncio.sleep(_PAUSE)
                    self._push()
        finally:
            self._withdraw(line)
        if line.lost is not None:
            raise line.lost

    async def drain(self, patience: float) -> None:
        """Gives the reader `patience` seconds to take what waits."""
        end = time.monotonic() + patience
        self._push()
        while self._lines and time.monotonic() < end:
            await asyncio.sleep(_PAUSE)
            self._push()

    def _add(self, data: bytes) -> _Line | None:
        if self._size + len(data) > self.limit:
            self.dropped += 1
            return None
        line = _Line(data)
        self._lines.append(line)
        self._size += len(data)
        return line

    def _withdraw(self, line: _Line) -> None:
        """Takes back a line of which nothing was written."""
        if line.written == 0 and line.lost is None:
            self._lines.remove(line)
            self._size -= len(line.data)

    def _push(self) -> None:
        """Writes as much as is taken at once. What can't be written is lost, and whoever waits for it hears so."""
        while self._lines and self._poll.poll(0):
            line = self._lines[0]
            try:
                if self._torn:
                    os.write(self.descriptor, b"\n")  # what follows a torn line is whole
                    self._torn = False
                    continue
                line.written += os.write(self.descriptor, _piece(line))
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error)
                return
            if line.taken:
                self._size -= len(line.data)
                self._lines.popleft()

    def _lose(self, error: OSError) -> None:
        self._torn = self._torn or self._lines[0].written > 0
        self.dropped += len(self._lines)
        for line in self._lines:
            line.lost = error
        self._lines.clear()
        self._size = 0


def _piece(line: _Line) -> memoryview:
    """What is written at once: whole lines where they fit, so that others who write to the pipe come between lines."""
    end = min(line.written + _ATOMIC, len(line.data))
    if end < len(line.data):
        end = line.data.rfind(b"\n", line.written, end) + 1 or end
    return memoryview(line.data)[line.written : end]
