"""Reads audit files that may be damaged, hostile or still written: line by line, in bounded memory.

What can't be read on is a `Damaged`, which says in which line. What a reader is shown are lines that verify: each
follows from the one before it, and none is contradicted by the one after it. Whatever else is there is left out, and
said.
"""

from __future__ import annotations

import gzip
import os
import stat
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from livekit_auth_server.core.chain import MAX_LINE, Checked, Head, difference, odd, read
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_BLOCK = 64 * 1024
_NO_LINE = "isn't a line of the audit trail"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: the file, the line in it (0 for the file as a whole) and what."""

    file: str
    line: int
    what: str


Left = Callable[[Finding], None]
"""Hears what was left out."""


class Damaged(Exception):  # noqa: N818 - what the file is, not what the program did
    """A file that can't be read on from this line; the message says why."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


def lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The lines without their line breaks, and whether each has one. Reads .gz files too.

    Raises ConfigError for a file that can't be opened, and Damaged.
    """
    number = 0
    with opened(path) as file:
        try:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    break
                yield line.removesuffix(b"\n"), line.endswith(b"\n")
            else:
                return
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise Damaged(number + 1, f"can't be read on: {why}") from None
    raise Damaged(number, "is longer than any line of the audit trail; the file isn't read on")


def opened(path: Path) -> IO[bytes]:
    """The file, which must be a regular one: others could hold up the reader for good. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise ConfigError(path, "isn't a regular file")
    return cast("IO[bytes]", _Unpacked(file)) if path.suffix == ".gz" else file


class _Unpacked(gzip.GzipFile):
    """A compressed file that closes the one beneath it."""

    def __init__(self, beneath: IO[bytes]) -> None:
        super().__init__(fileobj=beneath)
        self._beneath = beneath

    def close(self) -> None:
        super().close()
        self._beneath.close()


def verified(files: Iterable[tuple[Path, Checked]], left: Left) -> Iterator[Checked]:
    """The lines that verify, of files in the order of their chains, each with its first line that can be read."""
    chain = _Chain(left)
    for path, first in files:
        yield from chain.file(str(path), first.head.chain)
        number = 0
        try:
            for number, (line, whole) in enumerate(lines(path), 1):
                if whole or not live(path):
                    yield from chain.line(line if whole else b"", number)
        except Damaged as damaged:
            left(Finding(str(path), damaged.line, damaged.what))
    yield from chain.end()


def live(path: Path) -> bool:
    """Whether the file is one that a server may be writing, by its name: rotation gives it another."""
    return path.suffix == ".jsonl"


class _Chain:
    """Holds each line back until the next one has vouched for it: that names its hash."""

    def __init__(self, left: Left) -> None:
        self._left = left
        self._name = self._chain = ""
        self._held: tuple[str, Checked, bool] | None = None  # its file, and whether it follows the one before it

    def file(self, name: str, chain: str) -> Iterator[Checked]:
        """The next lines are of this file and, as far as they are good, of this chain."""
        if chain != self._chain:
            yield from self.end()
        self._name, self._chain = name, chain

    def line(self, line: bytes, number: int) -> Iterator[Checked]:
        checked = read(line, number)
        if checked is None or checked.head.chain != self._chain:
            self._left(Finding(self._name, number, _NO_LINE if checked is None else "belongs to another chain"))
            return
        follows = self._held is None or checked.before == self._held[1].head
        yield from self._let_go(good=follows)
        self._held = self._name, checked, follows

    def end(self) -> Iterator[Checked]:
        """Nothing follows: the last line is good if it follows the one before it."""
        yield from self._let_go(good=self._held is not None and self._held[2])

    def _let_go(self, *, good: bool) -> Iterator[Checked]:
        if self._held is None:
            return
        (name, held, _), self._held = self._held, None
        if not good:
            self._left(Finding(name, held.line, "can't be verified: the lines before and after it don't fit it"))
        elif member := odd(held.fields):
            self._left(Finding(name, held.line, f"has a value that no line of the trail has: {member}"))
        else:
            yield held


def last_lines(path: Path, count: int) -> list[bytes]:
    """The last whole lines of a file, whatever they are. Raises ConfigError and Damaged."""
    if path.suffix == ".gz":
        return list(deque((line for line, whole in lines(path) if whole), count))
    with opened(path) as file:
        return _last_of(file, count)


def tail(path: Path, count: int, left: Left) -> Iterator[bytes]:
    """The last lines of a file that verify, as they are. Raises ConfigError."""
    try:
        found = last_lines(path, count + 1) if count else []
    except Damaged as damaged:
        left(Finding(str(path), damaged.line, damaged.what))
        return
    yield from _good(path, found, count, left)


def _good(path: Path, found: Sequence[bytes], count: int, left: Left) -> Iterator[bytes]:
    """Of the last lines and the one before them those that verify, without the one before them."""
    first = next((checked for line in found if (checked := read(line)) is not None), None)
    chain = _Chain(lambda finding: left(Finding(finding.file, 0, f"one of the last lines {finding.what}")))
    good: list[Checked] = list(chain.file(str(path), first.head.chain if first is not None else ""))
    for number, line in enumerate(found):
        good += chain.line(line, number)
    good += chain.end()
    extra = len(found) > count  # the first one is only there to vouch
    yield from (found[checked.line] for checked in good if checked.line > 0 or not extra)


def _last_of(file: IO[bytes], count: int) -> list[bytes]:
    """The last whole lines; leaves the file at the end that it had."""
    position = end = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= count and len(data) <= (count + 1) * MAX_LINE:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    file.seek(end)
    found = data.split(b"\n")[:-1]
    return found[-count:] if count else []


@dataclass(slots=True)
class _Followed:
    """A file that is written meanwhile."""

    path: Path
    file: IO[bytes]
    head: Head | None = None
    rest: bytes = b""
    fresh: bool = True  # whether its next line may begin a chain

    def new(self, left: Left) -> Iterator[bytes]:
        """The lines that came since, as far as each follows from the one before it."""
        while data := self.file.read(MAX_LINE):
            *found, self.rest = (self.rest + data).split(b"\n")
            for line in found:
                if self._follows(line, left):
                    yield line
            if len(self.rest) > MAX_LINE:
                left(Finding(str(self.path), 0, f"a new line {_NO_LINE}"))
                self.rest = b""

    def _follows(self, line: bytes, left: Left) -> bool:
        checked, why = read(line), ""
        if checked is None:
            why = _NO_LINE
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


def follow(
    paths: Sequence[Path],
    count: int,
    left: Left,
    sleep: Callable[[float], None] = time.sleep,
    turns: int | None = None,
) -> Iterator[bytes]:
    """The last lines of each file, then new ones as they come, through rotation. Ends after `turns` looks, if given.

    Raises ConfigError for a compressed file: nothing is ever added to one.
    """
    for path in paths:
        if path.suffix == ".gz":
            raise ConfigError(path, "is compressed, so nothing is added to it; leave out --follow")
    with ExitStack() as stack:
        followed = [_Followed(path, stack.enter_context(opened(path))) for path in paths]
        for one in followed:
            last = _last_of(one.file, count + 1)
            one.head = next((checked.head for line in reversed(last) if (checked := read(line)) is not None), None)
            one.fresh = one.head is None
            yield from _good(one.path, last if count else [], count, left)
        while turns is None or turns > 0:
            for one in followed:
                replaced = _replaced(one.path, one.file)  # first: what is read then is all that the old file ever gets
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
