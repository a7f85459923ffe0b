"""What the audit trail says, as one value per line, and how a value becomes JSON.

Guarantees: no value holds a token or a secret: of a token, its SHA-256. A line is printable ASCII, whatever is in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


class AuditLine(Protocol):
    """What one line of the trail says. Values aren't changed once they are handed to a sink."""

    def members(self) -> dict[str, Any]:
        """The line's JSON members, `kind` first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision. `time` is in seconds since the epoch, `ttl` in seconds. Members that don't apply are empty or None.

    `powers` are the names of the powers that the token took, sorted and separated by commas. `request_reason` is what
    the caller said was behind its request.
    """

    kind: ClassVar[str] = "decision"

    decision_id: str
    time: int
    caller: str
    certificate_serial: str
    method: str
    permitted: bool
    dry_run: bool = False
    project: str = ""
    access: str = ""
    room: str = ""
    identity: str = ""
    ttl: int | None = None
    entry: str = ""
    reason: str = ""
    key_id: str = ""
    token_sha256: str = ""
    policy_revision: str
    trace_id: str
    participant_kind: str = ""
    powers: str = ""
    room_preset: str = ""
    request_reason: str = ""

    def members(self) -> dict[str, Any]:
        """The line's JSON members."""
        return dict(zip(_MEMBERS, _values(self), strict=True))


_MEMBERS = ("kind", *(field.name for field in fields(AuditRecord)))
_values = attrgetter(*_MEMBERS)


@dataclass(frozen=True, slots=True)
class Withheld:
    """The token of a recorded decision didn't leave the server."""

    decision_id: str
    time: int
    why: str

    def members(self) -> dict[str, Any]:
        """The line's JSON members."""
        return {"kind": "withheld", "decision_id": self.decision_id, "time": self.time, "why": self.why}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Lines about denials that a sink lost."""

    denials: int
    time: int

    def members(self) -> dict[str, Any]:
        """The line's JSON members."""
        return {"kind": "dropped", "denials": self.denials, "time": self.time}


def json_line(members: Mapping[str, Any]) -> bytes:
    """The members as a JSON object in printable ASCII: everything else is escaped. It has no line break."""
    line = orjson.dumps(members)
    if line.isascii() and b"\x7f" not in line:  # then json would write the same, and take twenty times as long
        return line
    return json.dumps(members, separators=(",", ":")).encode("ascii")


def token_digest(token: str) -> str:
    """A token's SHA-256 in hexadecimal. It leads from a token that was found to its decision."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()
