"""The last lines of audit files that verify, and new ones as they are written, through rotation."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from livekit_auth_server.audit.reading import NO_LINE, Damaged, Finding, VerifiedChain, lines, opened
from livekit_auth_server.core.chain import MAX_LINE, Head, difference, odd, read
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from livekit_auth_server.audit.reading import Left
    from livekit_auth_server.core.chain import Checked

_BLOCK = 64 * 1024


def last_lines(path: Path, count: int) -> list[bytes]:
    """The last complete lines of a file, whatever they are. Raises ConfigError and Damaged."""
    if path.suffix == ".gz":
        return list(deque((line for line, whole in lines(path) if whole), count))
    with opened(path) as file:
        return _last_of(file, count)


def last_verified(path: Path, count: int, left: Left) -> Iterator[bytes]:
    """The last lines of a file, as far as they verify, unchanged. Raises ConfigError."""
    try:
        found = last_lines(path, count + 1) if count else []
    except Damaged as damaged:
        left(Finding(str(path), damaged.line, damaged.what))
        return
    yield from _good(path, found, count, left)


def _good(path: Path, found: Sequence[bytes], count: int, left: Left) -> Iterator[bytes]:
    """Those of the last lines that verify. One more line before them only confirms, and isn't among the result."""
    first = next((checked for line in found if (checked := read(line)) is not None), None)
    chain = VerifiedChain(lambda finding: left(Finding(finding.file, 0, f"one of the last lines {finding.what}")))
    good: list[Checked] = list(chain.file(str(path), first.head.chain if first is not None else ""))
    for number, line in enumerate(found):
        good += chain.line(line, number)
    good += chain.end()
    extra = len(found) > count  # the first one only confirms
    yield from (found[checked.line] for checked in good if checked.line > 0 or not extra)


def _last_of(file: IO[bytes], count: int) -> list[bytes]:
    """The last complete lines, and nothing before one that is too long for the trail. Leaves the file at its end."""
    position = end = file.seek(0, os.SEEK_END)
    blocks: deque[bytes] = deque()
    breaks = since_break = 0
    while position > 0 and breaks <= count and since_break <= MAX_LINE:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        blocks.appendleft(block := file.read(step))
        breaks += block.count(b"\n")
        first = block.find(b"\n")
        since_break = since_break + step if first < 0 else first
    file.seek(end)
    *found, rest = b"".join(blocks).split(b"\n")
    if not found and len(rest) > MAX_LINE:  # not a line that is being written: readers hear of it
        found = [rest]
    return found[-count:] if count else []


@dataclass(slots=True)
class _Followed:
    """A file that is being written."""

    path: Path
    file: IO[bytes]
    head: Head | None = None
    rest: bytes = b""
    fresh: bool = True  # whether its next line may begin a chain

    def new(self, left: Left) -> Iterator[bytes]:
        """The lines that were added since, as far as each follows from the one before it."""
        while data := self.file.read(MAX_LINE):
            *found, self.rest = (self.rest + data).split(b"\n")
            for line in found:
                if self._follows(line, left):
                    yield line
            if len(self.rest) > MAX_LINE:
                left(Finding(str(self.path), 0, f"a new line {NO_LINE}"))
                self.rest = b""

    def _follows(self, line: bytes, left: Left) -> bool:
        checked, why = read(line), ""
        if checked is None:
            why = NO_LINE
        else:
            if member := odd(checked.fields):
                why = f"has a value that no line of the trail has: {member}"
            begins = self.fresh and checked.before == Head(checked.head.chain)
            if self.head is not None and checked.before != self.head and not begins:
                why = difference(self.head, checked.before)
            self.head, self.fresh = checked.head, False
        if why:
            left(Finding(str(self.path), 0, f"a new line {why}"))
        return not why


def followed(
    paths: Sequence[Path],
    count: int,
    left: Left,
    sleep: Callable[[float], object] = time.sleep,
    turns: int | None = None,
) -> Iterator[bytes]:
    """The last lines of each file, then new ones as they come, through rotation. Ends after `turns` looks, if given.

    Raises ConfigError, also for a compressed file: nothing is ever added to one.
    """
    for path in paths:
        if path.suffix == ".gz":
            raise ConfigError(path, "is compressed, so nothing is added to it; leave out --follow")
    with ExitStack() as stack:
        files = [_Followed(path, stack.enter_context(opened(path))) for path in paths]
        for one in files:
            last = _last_of(one.file, count + 1)
            one.head = next((checked.head for line in reversed(last) if (checked := read(line)) is not None), None)
            one.fresh = one.head is None
            yield from _good(one.path, last if count else [], count, left)
        while turns is None or turns > 0:
            for one in files:
                replaced = _replaced(one.path, one.file)  # before reading: afterwards the old file gets nothing more
                yield from one.new(left)
                if replaced:
                    one.file.close()
                    one.file, one.rest, one.fresh = stack.enter_context(opened(one.path)), b"", True
            turns = turns - 1 if turns is not None else None
            sleep(0.2)


def _replaced(path: Path, file: IO[bytes]) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:  # renamed, and the next one hasn't begun
        return False
