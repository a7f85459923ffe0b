"""What may be shown of tokens and secrets: decoded claims and fingerprints, never the thing itself.

LiveKit itself repeats a refused token in its answer and its log, so whatever came from it goes through `redacted`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Protocol

_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_secrets: set[str] = set()


def keep_secret(text: str) -> str:
    """Has `redacted` take this text out from now on; returns it."""
    _secrets.add(text)
    return text


def redacted(text: str) -> str:
    """The text with every token replaced by its fingerprint, and secrets taken out."""
    for secret in _secrets:
        text = text.replace(secret, "<secret>")
    return _JWT.sub(lambda match: f"<token sha256:{fingerprint(match[0])}>", text)


def fingerprint(token: str) -> str:
    """The first 16 hexadecimal digits of the token's SHA-256: enough to tell tokens apart."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def claims(token: str) -> dict[str, Any]:
    """A token's claims, unverified, for people to read."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class Bearer(Protocol):
    """A token and where to take it: what IssuedToken is, and a token that a test has forged."""

    @property
    def token(self) -> str: ...
    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Forged:
    """A token that this service didn't issue."""

    token: str = field(repr=False)
    url: str


class _RedactingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def redact_logs() -> None:
    """Has the logs of LiveKit's client pass through `redacted`."""
    logging.getLogger("livekit").addFilter(_RedactingFilter())
