"""Checks that LiveKit sent a webhook: body + Authorization header + keys → `VerifiedEvent`.

Guarantees: the body is taken byte for byte and read only after signature and hash have held; a token that carries
grants or a subject is refused, since access tokens are signed with the same secret; no text of the summary is cut.
Source: livekit/protocol webhook/url_notifier.go (5 min tokens, "sha256" in standard base64).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from livekit_auth_server.core.grants import CLAIMS
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.tokens import LAST_SECOND, verify_signed

if TYPE_CHECKING:
    from livekit_auth_server.core.keys import KeySet

_TEXT_LIMIT = 256  # bytes, for each text of the summary
_GRANT_CLAIMS = (*CLAIMS.values(), "roomPreset", "roomConfig")
_BEARER = re.compile(r"[Bb]earer ")
_SHA256_BYTES = 32
CONTROLS = r"\x00-\x1f\x7f-\x9f"
"""Control characters, as a regular expression's set. No name, and no id of an event, has one."""
_CONTROL = re.compile(f"[{CONTROLS}]")


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """A summary of a webhook that LiveKit signed. `create_time` is in seconds since the epoch, None when absent.

    `truncated` names the texts that are empty because the body's are longer than 256 bytes: a cut one could be another
    room's or participant's.
    """

    project: str
    key_id: str
    body_sha256: bytes
    raw_type: str
    id: str
    room: str
    participant_identity: str
    create_time: int | None
    truncated: tuple[str, ...]


def verify_webhook(body: bytes, authorization: str, keys: KeySet, projects: frozenset[str], now: int) -> VerifiedEvent:
    """Checks signature, times and hash, then summarises the event.

    Raises as `verify_signed` does, and NOT_A_WEBHOOK_TOKEN, BODY_ALTERED or BODY_NOT_JSON.
    """
    bearer = _BEARER.match(authorization)
    signed = verify_signed(authorization[bearer.end() :] if bearer else authorization, keys, projects, now)
    claims = signed.claims
    if claims.get("sub") not in (None, "") or any(claims.get(name) is not None for name in _GRANT_CLAIMS):
        raise Refusal(
            Reason.NOT_A_WEBHOOK_TOKEN, "the token carries a subject or grants: it gives access, signs no body"
        )
    digest = hashlib.sha256(body).digest()
    if not hmac.compare_digest(digest, _signed_digest(claims.get("sha256"))):
        raise Refusal(
            Reason.BODY_ALTERED,
            "LiveKit signed other bytes than this body; hand over the raw bytes as received "
            "(JSON that was parsed and serialised again is the usual cause)",
        )
    event = _body(body)
    texts = _texts(event)
    truncated = tuple(name for name, text in texts.items() if len(text.encode()) > _TEXT_LIMIT)
    return VerifiedEvent(
        project=signed.project.name,
        key_id=signed.key.id,
        body_sha256=digest,
        **(texts | dict.fromkeys(truncated, "")),
        create_time=_seconds(event.get("createdAt", event.get("created_at"))),
        truncated=truncated,
    )


def _signed_digest(claim: object) -> bytes:
    if not isinstance(claim, str) or not claim:
        raise Refusal(Reason.NOT_A_WEBHOOK_TOKEN, 'the token signs no body: it has no "sha256"')
    try:
        digest = b64decode(claim, validate=True)
    except (Base64Error, ValueError):
        digest = b""
    if len(digest) != _SHA256_BYTES or b64encode(digest).decode() != claim:
        raise Refusal(Reason.TOKEN_MALFORMED, '"sha256" isn\'t a SHA-256 in strict base64')
    return digest


def _body(body: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise Refusal(Reason.BODY_NOT_JSON, "LiveKit signed this body, and it isn't a JSON object")
    return event


def _texts(event: dict[str, Any]) -> dict[str, str]:
    """The texts of the summary, of any length."""
    return {
        "raw_type": _text(event, "event"),
        "id": _id(_text(event, "id")),
        "room": _text(event, "room", "name")
        or _text(event, "egressInfo", "roomName")
        or _text(event, "ingressInfo", "roomName")
        or _text(event, "job", "room", "name"),
        "participant_identity": _text(event, "participant", "identity"),
    }


def _id(text: str) -> str:
    """The event's id; empty for one that AckWebhook doesn't take."""
    return "" if _CONTROL.search(text) else text


def _text(value: object, *path: str) -> str:
    """The string at a path; empty when there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def _seconds(value: object) -> int | None:
    """A time in seconds: protojson writes an int64 as a string, and a number is taken too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(LAST_SECOND)):
        value = int(value)
    return value if type(value) is int and 0 < value <= LAST_SECOND else None
