"""Reads audit files: are their chains whole, what was decided, what is new. For people and programs, offline."""

from __future__ import annotations

import contextlib
import gzip
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.core.chain import Checked, Head, Problem, check, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_BLOCK = 64 * 1024
_Exported = dict[tuple[str, int], set[str]]  # hashes that were exported, by chain and number


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: the file, the line in it (0 for the file as a whole) and what."""

    file: str
    line: int
    what: str


@dataclass(slots=True)
class Chain:
    """A chain as it was found: its files in order, how many lines, the number of the first one, and its head."""

    chain: str
    files: list[str] = field(default_factory=list)
    lines: int = 0
    first: int = 0
    head: Head | None = None


@dataclass(slots=True)
class Verdict:
    """What a check came to. `notes` are remarks that are no problem."""

    chains: list[Chain] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def trail_files(paths: Iterable[Path]) -> list[Path]:
    """The files meant: a folder stands for its audit files, rotated ones too. Raises ConfigError."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
        elif files := sorted(path.glob("audit.*.jsonl*")):
            found += files
        else:
            raise ConfigError(path, "holds no audit files (audit.0.jsonl and the like)")
    return list({path.resolve(): path for path in found}.values())


def verify(paths: Iterable[Path], heads: Sequence[Head] = ()) -> Verdict:
    """Checks the chains in these files, given in any order, up to heads that were exported. Raises ConfigError."""
    verdict, exported = Verdict(), _Exported()
    for head in heads:
        exported.setdefault((head.chain, head.sequence), set()).add(head.digest)
    chain: Chain | None = None
    for path, first in _in_order(trail_files(paths), verdict):
        if chain is None or chain.chain != first.head.chain:
            chain = Chain(first.head.chain, first=first.head.sequence)
            verdict.chains.append(chain)
            if first.before.sequence:
                note = f"the chain begins with line {first.head.sequence}: older files weren't given"
                verdict.notes.append(Finding(str(path), 1, note))
            elif first.before != Head(first.head.chain):
                verdict.problems.append(Finding(str(path), 1, "the chain's first line names a line before it"))
        _verify_file(path, chain, verdict, exported)
    verdict.problems += [_missing(*place, verdict.chains) for place in sorted(exported)]
    return verdict


def _in_order(paths: list[Path], verdict: Verdict) -> list[tuple[Path, Checked]]:
    """The files by chain and sequence, each with its first line that can be read."""
    firsts = []
    for path in paths:
        first = next((checked for line, _ in _lines(path) if (checked := read(line)) is not None), None)
        if first is not None:
            firsts.append((path, first))
        elif any(True for _ in _lines(path)):
            verdict.problems.append(Finding(str(path), 1, "isn't an audit file"))
        else:
            verdict.notes.append(Finding(str(path), 0, "is empty"))
    return sorted(firsts, key=lambda pair: (pair[1].head.chain, pair[1].head.sequence, str(pair[0])))


def _verify_file(path: Path, chain: Chain, verdict: Verdict, exported: _Exported) -> None:
    chain.files.append(str(path))
    half: list[int] = []

    def whole_lines() -> Iterator[bytes]:
        for number, (line, whole) in enumerate(_lines(path), 1):
            if whole:
                yield line
            else:
                half.append(number)

    for found in check(whole_lines(), chain.head):
        if isinstance(found, Problem):
            verdict.problems.append(Finding(str(path), found.line, found.what))
            continue
        chain.lines += 1
        chain.head = found.head
        digests = exported.pop((chain.chain, found.head.sequence), None)
        if digests is not None and digests != {found.head.digest}:
            what = "isn't the line whose hash was exported: it was altered, or the chain rewritten"
            verdict.problems.append(Finding(str(path), found.line, what))
    for number in half:
        note = "the last line has no end: it is being written, or was when the server crashed"
        verdict.notes.append(Finding(str(path), number, note))


def _missing(chain_id: str, sequence: int, chains: list[Chain]) -> Finding:
    for chain in chains:
        if chain.chain == chain_id and chain.head is not None:
            if sequence > chain.head.sequence:
                what = f"ends with line {chain.head.sequence}, and line {sequence} was exported: its end was removed"
                return Finding(chain.files[-1], 0, what)
            return Finding(chain.files[0], 0, f"line {sequence}, which was exported as a head, isn't in these files")
    return Finding("", 0, f"no file of chain {chain_id} was given, and its line {sequence} was exported")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for; None and empty look for everything. Times are seconds since the epoch."""

    caller: str | None = None
    room: str | None = None
    identity: str | None = None
    decision: str | None = None
    key: str | None = None
    token_sha256: str | None = None
    since: float | None = None
    until: float | None = None
    denied: bool = False

    def matches(self, line: dict[str, Any]) -> bool:
        """Whether a line about decisions is looked for."""
        fields = {
            "room": self.room,
            "identity": self.identity,
            "decision_id": self.decision,
            "key_id": self.key,
            "token_sha256": self.token_sha256,
        }
        if any(value is not None and line.get(name) != value for name, value in fields.items()):
            return False
        if self.caller is not None and self.caller != line.get("caller") and self.caller not in line.get("callers", ()):
            return False
        if self.denied and line.get("permitted") is not False:
            return False
        began, ended = line.get("from", line.get("time", 0)), line.get("time", 0)
        return (self.since is None or ended >= self.since) and (self.until is None or began <= self.until)


def query(paths: Iterable[Path], wanted: Wanted) -> list[dict[str, Any]]:
    """The lines looked for, by time; a decision whose token was withheld is followed by the line that says so.

    Lines that can't be read are passed over: `verify` names them. Raises ConfigError.
    """
    found: list[dict[str, Any]] = []
    decisions: set[str] = set()
    files = _in_order(trail_files(paths), Verdict())
    for path, _ in files:
        for line, _whole in _lines(path):
            fields = checked.fields if (checked := read(line)) is not None else {}
            kind = fields.get("kind")
            if kind in ("decision", "denials") and wanted.matches(fields):
                found.append(fields)
                decisions.add(fields.get("decision_id", ""))
            elif kind == "withheld" and fields.get("decision_id") in decisions:
                found.append(fields)
    return sorted(found, key=lambda fields: int(fields.get("time", 0)))


def last_lines(path: Path, count: int) -> list[bytes]:
    """The last whole lines of a file. Raises ConfigError."""
    if path.suffix == ".gz":
        return list(deque((line for line, whole in _lines(path) if whole), count))
    with _open(path) as file:
        return _last_of(file, count)


def _last_of(file: IO[bytes], count: int) -> list[bytes]:
    """The last whole lines; leaves the file at the end that it had."""
    position = end = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= count:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    file.seek(end)
    lines = data.split(b"\n")[:-1]
    return lines[-count:] if count else []


def follow(
    paths: Sequence[Path], count: int, sleep: Callable[[float], None] = time.sleep, turns: int | None = None
) -> Iterator[bytes]:
    """The last lines of each file, then new ones as they come, through rotation. Ends after `turns` looks, if given."""
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(_open(path)) for path in paths}
        rests = dict.fromkeys(paths, b"")
        for file in files.values():
            yield from _last_of(file, count)
        while turns is None or turns > 0:
            for path, file in files.items():
                replaced = _replaced(path, file)  # asked first: what is read then is all that the old file ever gets
                *lines, rests[path] = (rests[path] + file.read()).split(b"\n")
                yield from lines
                if replaced:
                    file.close()
                    files[path], rests[path] = stack.enter_context(_open(path)), b""
            turns = turns - 1 if turns is not None else None
            sleep(0.2)


def _replaced(path: Path, file: IO[bytes]) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:  # renamed, and the next one hasn't begun
        return False


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The lines without their line breaks, and whether each has one. Reads .gz files too. Raises ConfigError."""
    with _open(path) as file:
        try:
            for line in file:
                yield line.removesuffix(b"\n"), line.endswith(b"\n")
        except (OSError, EOFError) as error:
            raise ConfigError(path, f"can't be read: {error}") from None


def _open(path: Path) -> IO[bytes]:
    try:
        return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
