"""The record of one issuance decision. It never holds a token or a secret: of a token, its SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import orjson


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision. `time` is seconds since the epoch, `ttl` seconds; what doesn't apply is empty, 0 or None.

    `powers` are the names of the powers that the token took, sorted, with commas between.
    """

    decision_id: str
    time: int
    caller: str
    certificate_serial: str
    method: str
    permitted: bool
    dry_run: bool
    project: str
    access: str
    room: str
    identity: str
    ttl: int | None
    entry: str
    reason: str
    key_id: str
    token_sha256: str
    policy_revision: str
    trace_id: str
    participant_kind: str = ""
    powers: str = ""
    room_preset: str = ""

    def to_json(self) -> str:
        """One line of JSON in ASCII: control characters, bidirectional marks and all else beyond it are escaped."""
        line = orjson.dumps(self).decode()
        if line.isascii() and line.isprintable():  # then json would write the same, and take twenty times as long
            return line
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=True)


def token_digest(token: str) -> str:
    """A token's SHA-256 in hexadecimal, by which a found token can be traced to its decision."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()
