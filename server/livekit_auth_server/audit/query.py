"""Searches audit files offline: who was issued what, and what was denied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from livekit_auth_server.audit.reading import Finding, in_order, verified

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to search for; None matches everything. Times are seconds since the epoch."""

    caller: str | None = None
    room: str | None = None
    identity: str | None = None
    decision: str | None = None
    key: str | None = None
    token_sha256: str | None = None
    request_reason: str | None = None
    since: float | None = None
    until: float | None = None
    denied: bool = False

    def matches(self, line: dict[str, Any]) -> bool:
        """Whether a line about decisions is one of those."""
        fields = {
            "room": self.room,
            "identity": self.identity,
            "decision_id": self.decision,
            "key_id": self.key,
            "token_sha256": self.token_sha256,
            "request_reason": self.request_reason,
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
    """What a search left out: per file the first place, and the number of further ones."""

    places: dict[str, tuple[Finding, int]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Counts one more."""
        first, more = self.places.get(finding.file, (finding, -1))
        self.places[finding.file] = first, more + 1

    def findings(self) -> list[Finding]:
        """One per file."""
        return [
            Finding(first.file, first.line, first.what + (f"; and {more} more in this file" if more else ""))
            for first, more in self.places.values()
        ]


def search(paths: Iterable[Path], wanted: Wanted, left: LeftOut | None = None) -> list[dict[str, Any]]:
    """The lines that match, by time. A decision whose token was withheld is followed by the line that says so.

    Lines that don't verify are left out, which `left` is told. Raises ConfigError.
    """
    left = left if left is not None else LeftOut()
    found: list[dict[str, Any]] = []
    decisions: set[str] = set()
    for checked in verified(in_order(paths, left.add), left.add):
        fields, kind = checked.fields, checked.fields.get("kind")
        if kind in ("decision", "denials") and wanted.matches(fields):
            found.append(fields)
            decisions.add(fields.get("decision_id", ""))
        elif kind == "withheld" and fields.get("decision_id") in decisions:
            found.append(fields)
    return sorted(found, key=lambda fields: int(fields.get("time", 0)))
