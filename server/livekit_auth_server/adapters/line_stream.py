"""Lines to a stream that may be a pipe which nobody reads: writing never blocks the server.

A pipe's reader that stops would otherwise stop every call with it, SIGTERM included. So nothing is written unless the
system says that it can be taken at once: lines wait in a bounded memory, and what doesn't fit there is dropped and
counted. Who needs to know that a line was taken waits for it without holding up anybody else.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from dataclasses import dataclass, field

_ATOMIC = select.PIPE_BUF  # bytes that a pipe takes at once when poll says that it takes any (POSIX write)
_PAUSE = 0.005  # seconds between looks while the reader is behind


@dataclass(slots=True, eq=False, weakref_slot=True)
class LineStream:
    """Lines to a file descriptor. `limit` is how many bytes may wait; `dropped` counts lines that found no room."""

    descriptor: int
    limit: int = 1024 * 1024
    dropped: int = 0
    _waiting: bytearray = field(default_factory=bytearray)
    _taken: int = 0
    _poll: select.poll = field(init=False)

    def __post_init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Hands over whole lines; never raises: a log that can't be written must not fail a call."""
        if self._add(line):
            self._push()

    def flush(self) -> None:
        """Tries to hand on what waits."""
        self._push()

    async def write_through(self, line: bytes, patience: float) -> None:
        """Returns when the stream has taken the line. Raises TimeoutError after `patience` seconds, or OSError."""
        if not self._add(line):
            raise TimeoutError("the stream's reader is too far behind")
        end = self._taken + len(self._waiting)
        self._push(strict=True)
        async with asyncio.timeout(patience):
            while self._taken < end:
                await asyncio.sleep(_PAUSE)
                self._push(strict=True)

    async def drain(self, patience: float) -> None:
        """Gives the reader `patience` seconds to take what waits."""
        end = time.monotonic() + patience
        self._push()
        while self._waiting and time.monotonic() < end:
            await asyncio.sleep(_PAUSE)
            self._push()

    def _add(self, line: bytes) -> bool:
        if len(self._waiting) + len(line) > self.limit:
            self.dropped += 1
            return False
        self._waiting += line
        return True

    def _push(self, *, strict: bool = False) -> None:
        """Writes as much as is taken at once. A stream that is gone loses what waits; `strict` says so."""
        while self._waiting and self._poll.poll(0):
            try:
                written = os.write(self.descriptor, self._waiting[:_ATOMIC])
            except OSError:
                self._taken += len(self._waiting)
                self._waiting.clear()
                self.dropped += 1
                if strict:
                    raise
                return
            self._taken += written
            del self._waiting[:written]
