"""Checks audit files and searches them: are their chains whole, what was decided. For people and programs, offline."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from livekit_auth_server.audit.reading import Damaged, Finding, lines, live, verified
from livekit_auth_server.core.chain import Checked, Head, Problem, check, read
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_MOST = 100  # findings that a file gets, however much is wrong with it
_SEARCHED = 1_000  # lines in which a file must have one of the trail
_Exported = dict[tuple[str, int], set[str]]  # hashes that were exported, by chain and number


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
    files = _in_order(trail_files(paths), verdict)
    following = [*(first.head.chain for _, first in files[1:]), ""]
    chain: Chain | None = None
    for (path, first), next_chain in zip(files, following, strict=False):
        if chain is None or chain.chain != first.head.chain:
            chain = Chain(first.head.chain, first=first.head.sequence)
            verdict.chains.append(chain)
            if first.before.sequence:
                note = f"the chain begins with line {first.head.sequence}: older files weren't given"
                verdict.notes.append(Finding(str(path), 1, note))
            elif first.before != Head(first.head.chain):
                verdict.problems.append(Finding(str(path), 1, "the chain's first line names a line before it"))
        written = live(path) and next_chain != chain.chain
        _File(path, chain, verdict, exported).verify(written=written)
    verdict.problems += [_missing(*place, verdict.chains) for place in sorted(exported)]
    return verdict


def _in_order(paths: list[Path], verdict: Verdict) -> list[tuple[Path, Checked]]:
    """The files by chain and sequence, each with its first line that can be read."""
    firsts = []
    for path in paths:
        first, empty = None, True
        try:
            for line, _ in islice(lines(path), _SEARCHED):
                empty = False
                if (first := read(line)) is not None:
                    break
        except Damaged as damaged:
            verdict.problems.append(Finding(str(path), damaged.line, damaged.what))
            continue
        if first is not None:
            firsts.append((path, first))
        elif empty:
            verdict.notes.append(Finding(str(path), 0, "is empty"))
        else:
            verdict.problems.append(Finding(str(path), 1, "isn't an audit file"))
    return sorted(firsts, key=lambda pair: (pair[1].head.chain, pair[1].head.sequence, str(pair[0])))


@dataclass(slots=True)
class _File:
    """A file that is held against its chain. `written` is whether a server may be writing it."""

    path: Path
    chain: Chain
    verdict: Verdict
    exported: _Exported
    half: tuple[int, bytes] | None = None
    damaged: Damaged | None = None
    found: int = 0

    def verify(self, *, written: bool) -> None:
        self.chain.files.append(str(self.path))
        for found in check(self._whole_lines(), self.chain.head):
            if isinstance(found, Checked):
                self._line(found)
            elif not self._problem(found):
                return
        if self.damaged is not None:
            self._problem(Problem(self.damaged.line, self.damaged.what))
        elif self.half is not None:
            self._half_line(*self.half, written=written)

    def _whole_lines(self) -> Iterator[bytes]:
        try:
            for number, (line, whole) in enumerate(lines(self.path), 1):
                if whole:
                    yield line
                else:
                    self.half = number, line
        except Damaged as damaged:
            self.damaged = damaged

    def _line(self, line: Checked) -> None:
        self.chain.lines += 1
        self.chain.head = line.head
        digests = self.exported.pop((self.chain.chain, line.head.sequence), None)
        if digests is not None and digests != {line.head.digest}:
            what = "isn't the line whose hash was exported: it was altered, or the chain rewritten"
            self._problem(Problem(line.line, what))

    def _half_line(self, number: int, half: bytes, *, written: bool) -> None:
        """At the end of a file that may be written it is a remark, as far as it is the chain's next line."""
        start = self.chain.head.next_start if self.chain.head is not None else b""
        if written and start and (start.startswith(half) or half.startswith(start)):
            note = "the last line has no end: it is being written, or was when the server crashed"
            self.verdict.notes.append(Finding(str(self.path), number, note))
        else:
            self._problem(Problem(number, "has no end: something was cut off or added after the last whole line"))

    def _problem(self, problem: Problem) -> bool:
        """Notes it; False when there are so many that the file isn't checked further."""
        self.found += 1
        what = problem.what if self.found < _MOST else f"{problem.what}; the file isn't checked further"
        self.verdict.problems.append(Finding(str(self.path), problem.line, what))
        return self.found < _MOST


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


@dataclass(slots=True)
class LeftOut:
    """What a search passed over: of each file the first place, and how many more there are."""

    places: dict[str, tuple[Finding, int]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Counts one more."""
        first, more = self.places.get(finding.file, (finding, -1))
        self.places[finding.file] = first, more + 1

    def findings(self) -> list[Finding]:
        """One for each file."""
        return [
            Finding(first.file, first.line, first.what + (f"; and {more} more in this file" if more else ""))
            for first, more in self.places.values()
        ]


def query(paths: Iterable[Path], wanted: Wanted, left: LeftOut | None = None) -> list[dict[str, Any]]:
    """The lines looked for, by time; a decision whose token was withheld is followed by the line that says so.

    Lines that don't verify are passed over, which `left` hears. Raises ConfigError.
    """
    left = left if left is not None else LeftOut()
    found: list[dict[str, Any]] = []
    decisions: set[str] = set()
    verdict = Verdict()
    files = _in_order(trail_files(paths), verdict)
    for problem in verdict.problems:
        left.add(problem)
    for checked in verified(files, left.add):
        fields, kind = checked.fields, checked.fields.get("kind")
        if kind in ("decision", "denials") and wanted.matches(fields):
            found.append(fields)
            decisions.add(fields.get("decision_id", ""))
        elif kind == "withheld" and fields.get("decision_id") in decisions:
            found.append(fields)
    return sorted(found, key=lambda fields: int(fields.get("time", 0)))
