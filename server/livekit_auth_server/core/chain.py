"""The audit trail's chain: each line holds the hash of the line before, so that tampering shows.

A chain is a sequence of lines of JSON whose numbers grow by one. It begins with a *segment* line, and so does each part
of it in another file or after an interruption; like every line, a segment line names the head before it. The head is
the last line's number and SHA-256: anyone who stores a head elsewhere can tell whether anything up to it was altered,
removed or added (docs/audit.md).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from livekit_auth_server.core.audit import json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_LINE = 1024 * 1024  # bytes with the line break: no line is longer
NOTHING = "0" * 64  # what the first line of a chain names as the hash before it

_CHAIN, _DIGEST = re.compile(r"[0-9a-f]{16}\Z"), re.compile(r"[0-9a-f]{64}\Z")
_HEAD = re.compile(r"(?P<chain>[0-9a-f]{16}):(?P<sequence>[0-9]{1,18}):(?P<digest>[0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its id, the number of its last line and that line's SHA-256 in hexadecimal."""

    chain: str
    sequence: int = 0
    digest: str = NOTHING

    def __str__(self) -> str:
        return f"{self.chain}:{self.sequence}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Parses "CHAIN:SEQUENCE:SHA256", as `str` writes it. Raises ValueError."""
        match = _HEAD.match(text)
        if match is None:
            raise ValueError("a head is CHAIN:SEQUENCE:SHA256, as the log has it")
        return cls(match["chain"], int(match["sequence"]), match["digest"])

    @property
    def next_start(self) -> bytes:
        """The beginning of the next line, whatever its members are."""
        return f'{{"chain":"{self.chain}","seq":{self.sequence + 1},"prev":"{self.digest}",'.encode("ascii")

    def append(self, members: Mapping[str, Any]) -> tuple[bytes, Head]:
        """The next line, with its line break, and the head that it makes. The chain's members come before `members`."""
        sequence = self.sequence + 1
        line = json_line({"chain": self.chain, "seq": sequence, "prev": self.digest, **members})
        return line + b"\n", Head(self.chain, sequence, hashlib.sha256(line).hexdigest())

    def segment(self, why: str, time: int) -> tuple[bytes, Head]:
        """The line with which a writer starts, or continues in another file or after a failure."""
        readable = why.encode(errors="backslashreplace").decode()  # a file's name may be no Unicode
        return self.append({"kind": "segment", "why": readable, "time": time})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a chain: the number of the line in the input, and what is wrong."""

    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A line that was read: its number in the input, its fields, the head before it and the one that it makes."""

    line: int
    fields: dict[str, Any]
    before: Head
    head: Head


def check(lines: Iterable[bytes], after: Head | None = None) -> Iterator[Checked | Problem]:
    """Reads lines without their line breaks. Yields each one that can be read, and before it what is wrong with it.

    `after` is the head that the first line must follow. None accepts the head that the first line names, which is right
    for the oldest file that exists.
    """
    head = after
    for number, line in enumerate(lines, 1):
        checked = read(line, number)
        if checked is None:
            yield Problem(number, "isn't a line of the audit trail")
            continue
        if head is not None and checked.before != head:
            yield Problem(number, difference(head, checked.before))
        if name := odd(checked.fields):
            yield Problem(number, f"has a value that no line of the trail has: {name}")
        head = checked.head
        yield checked


def difference(expected: Head, found: Head) -> str:
    """Why a line doesn't follow: `found` is the head that it names, `expected` the one before it."""
    if expected.chain != found.chain:
        return f"belongs to chain {found.chain}, not {expected.chain}"
    if found.sequence > expected.sequence:
        return f"has number {found.sequence + 1} and should have {expected.sequence + 1}: lines were removed"
    if found.sequence < expected.sequence:
        return f"has number {found.sequence + 1} and should have {expected.sequence + 1}: lines were added or moved"
    return "doesn't name the hash of the line before it: that line was altered, or this one"


def read(line: bytes, number: int = 1) -> Checked | None:
    """The line by itself; None if it isn't a line of a chain."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not line.isascii():
        return None
    chain, sequence, previous = fields.get("chain"), fields.get("seq"), fields.get("prev")
    if not (isinstance(chain, str) and isinstance(previous, str) and type(sequence) is int and 1 <= sequence < _MOST):
        return None
    if not (_CHAIN.match(chain) and _DIGEST.match(previous)):
        return None
    before = Head(chain, sequence - 1, previous)
    if not line.startswith(before.next_start):
        return None
    return Checked(number, fields, before, Head(chain, sequence, hashlib.sha256(line).hexdigest()))


def odd(fields: dict[str, Any]) -> str:
    """The first field with a value that no writer gives it; empty if there is none. Readers may rely on the others.

    Fields that this version doesn't know may have any value that isn't nested deeper.
    """
    return next((ascii(name)[:100] for name, value in fields.items() if not _FIELDS.get(name, _is_flat)(value)), "")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LAST_SECOND


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_counts(value: object) -> bool:
    return isinstance(value, dict) and all(_is_count(count) for count in value.values())


def _is_flat(value: object) -> bool:
    values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    return not any(isinstance(one, list | dict) for one in values)


_MOST = 10**18  # a Head's number has 18 digits at most
_LAST_SECOND = 253_402_300_799  # of the year 9999
_TEXTS = """kind why decision_id caller certificate_serial method project access room identity entry reason key_id
token_sha256 policy_revision trace_id participant_kind powers room_preset request_reason"""
_FIELDS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(_TEXTS.split(), _is_text),
    **dict.fromkeys(("time", "from"), _is_time),
    **dict.fromkeys(("count", "denials"), _is_count),
    **dict.fromkeys(("permitted", "dry_run", "listed"), _is_flag),
    **dict.fromkeys(("methods", "reasons"), _is_counts),
    "ttl": lambda value: value is None or _is_count(value),
    "callers": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}
