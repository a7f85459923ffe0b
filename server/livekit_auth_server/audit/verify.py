"""Verifies audit files offline: whether their chains are complete and unaltered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth_server.audit.reading import Damaged, Finding, in_order, lines, live
from livekit_auth_server.core.chain import Checked, Head, Problem, check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_MOST = 100  # findings per file, however much is wrong with it
_Exported = dict[tuple[str, int], set[str]]  # exported hashes, by chain and number


@dataclass(slots=True)
class Chain:
    """A chain as it was found: its files in order, the number of its lines, the first one's number, and its head."""

    chain: str
    files: list[str] = field(default_factory=list)
    lines: int = 0
    first: int = 0
    head: Head | None = None


@dataclass(slots=True)
class Verdict:
    """The result of a verification. `notes` are remarks, not problems."""

    chains: list[Chain] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def verify_files(paths: Iterable[Path], heads: Sequence[Head] = ()) -> Verdict:
    """Verifies the chains in these files, given in any order, up to exported heads. Raises ConfigError."""
    verdict, exported = Verdict(), _Exported()
    for head in heads:
        exported.setdefault((head.chain, head.sequence), set()).add(head.digest)
    files = in_order(paths, verdict.problems.append, verdict.notes.append)
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


@dataclass(slots=True)
class _File:
    """A file that is compared with its chain. `written` is whether a server may be writing it."""

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
        """At the end of a file that may be written it is a note, if it begins the chain's next line."""
        start = self.chain.head.next_start if self.chain.head is not None else b""
        if written and start and (start.startswith(half) or half.startswith(start)):
            note = "the last line has no end: it is being written, or was when the server crashed"
            self.verdict.notes.append(Finding(str(self.path), number, note))
        else:
            self._problem(Problem(number, "has no end: something was cut off or added after the last whole line"))

    def _problem(self, problem: Problem) -> bool:
        """Adds it; False if there are so many that the file isn't checked further."""
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
