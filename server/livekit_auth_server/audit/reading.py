"""Reads audit files that may be damaged, hostile or still being written: line by line, in bounded memory.

A file that can't be read further raises `Damaged`, which names the line. Readers are shown lines that verify: each
follows from the one before it, and the one after it confirms it. Everything else is left out and reported.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, cast

from livekit_auth_server.core.chain import MAX_LINE, Checked, odd, read
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

NO_LINE = "isn't a line of the audit trail"
_SEARCHED = 1_000  # lines among which a file must have one of the trail


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: the file, the line in it (0 for the file as a whole) and what."""

    file: str
    line: int
    what: str


Left = Callable[[Finding], None]
"""Is told what was left out."""


class Damaged(Exception):  # noqa: N818 - what the file is, not what the program did
    """The file can't be read further than this line; the message says why."""

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
            raise Damaged(number + 1, f"can't be read further: {why}") from None
    raise Damaged(number, "is longer than any line of the audit trail; the file isn't read further")


def opened(path: Path) -> IO[bytes]:
    """The file, which must be a regular one: others could block the reader forever. Raises ConfigError."""
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
    """A compressed file. Closing it closes the file beneath it."""

    def __init__(self, beneath: IO[bytes]) -> None:
        super().__init__(fileobj=beneath)
        self._beneath = beneath

    def close(self) -> None:
        super().close()
        self._beneath.close()


def trail_files(paths: Iterable[Path]) -> list[Path]:
    """The files to read: a folder stands for its audit files, including rotated ones. Raises ConfigError."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
        elif files := sorted(path.glob("audit.*.jsonl*")):
            found += files
        else:
            raise ConfigError(path, "holds no audit files (audit.0.jsonl and the like)")
    return list({path.resolve(): path for path in found}.values())


def in_order(paths: Iterable[Path], left: Left, note: Left | None = None) -> list[tuple[Path, Checked]]:
    """The files meant, by chain and sequence, each with its first line that can be read. Raises ConfigError.

    `left` is told of files that can't be used, `note` of empty ones.
    """
    firsts = []
    for path in trail_files(paths):
        first, empty = None, True
        try:
            for line, _ in islice(lines(path), _SEARCHED):
                empty = False
                if (first := read(line)) is not None:
                    break
        except Damaged as damaged:
            left(Finding(str(path), damaged.line, damaged.what))
            continue
        if first is not None:
            firsts.append((path, first))
        elif empty:
            if note is not None:
                note(Finding(str(path), 0, "is empty"))
        else:
            left(Finding(str(path), 1, "isn't an audit file"))
    return sorted(firsts, key=lambda pair: (pair[1].head.chain, pair[1].head.sequence, str(pair[0])))


def verified(files: Iterable[tuple[Path, Checked]], left: Left) -> Iterator[Checked]:
    """The lines that verify, of files as `in_order` returns them."""
    chain = VerifiedChain(left)
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
    """Whether a server may be writing the file, by its name: rotation gives it another."""
    return path.suffix == ".jsonl"


class VerifiedChain:
    """Holds each line back until the next one confirms it by naming its hash."""

    def __init__(self, left: Left) -> None:
        self._left = left
        self._name = self._chain = ""
        self._held: tuple[str, Checked, bool] | None = None  # its file, and whether it follows the one before it

    def file(self, name: str, chain: str) -> Iterator[Checked]:
        """The next lines are from this file and, if they are good, belong to this chain."""
        if chain != self._chain:
            yield from self.end()
        self._name, self._chain = name, chain

    def line(self, line: bytes, number: int) -> Iterator[Checked]:
        """The next line; yields the one before it, if that is good."""
        checked = read(line, number)
        if checked is None or checked.head.chain != self._chain:
            self._left(Finding(self._name, number, NO_LINE if checked is None else "belongs to another chain"))
            return
        follows = self._held is None or checked.before == self._held[1].head
        yield from self._let_go(good=follows)
        self._held = self._name, checked, follows

    def end(self) -> Iterator[Checked]:
        """Nothing follows. The last line is good if it follows from the one before it."""
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
