"""Tokens and webhooks as LiveKit signs them, and as nobody should."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import jwt

from support.deployment import SECRETS


def webhook_token(body: bytes, key_id: str = "APIalpha", *, algorithm: str = "HS256", **claims: Any) -> str:
    """The JWT that LiveKit sends with a webhook (its webhook/url_notifier.go); claims of None are left out."""
    now = int(time.time())
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    payload = {"iss": key_id, "nbf": now, "exp": now + 300, "sha256": digest, **claims}
    payload = {name: value for name, value in payload.items() if value is not None}
    return _signed(payload, key_id, algorithm)


def event(name: str = "participant_joined", **fields: Any) -> bytes:
    """A webhook's body."""
    content = {
        "event": name,
        "room": {"sid": "RM_1", "name": "consult-1"},
        "participant": {"sid": "PA_1", "identity": "user-1"},
        "id": "EV_1",
        "createdAt": "1700000000",
        **fields,
    }
    return json.dumps(content).encode()


def access_token(key_id: str = "APIalpha", *, algorithm: str = "HS256", **claims: Any) -> str:
    now = int(time.time())
    payload = {"iss": key_id, "sub": "user-1", "nbf": now, "exp": now + 300, "video": {"roomJoin": True, "room": "r"}}
    payload = {name: value for name, value in {**payload, **claims}.items() if value is not None}
    return _signed(payload, key_id, algorithm)


def _signed(payload: dict[str, Any], key_id: str, algorithm: str) -> str:
    # PyJWT takes None for "none" and for nothing else, which its types don't say.
    key: Any = None if algorithm == "none" else SECRETS.get(key_id, "x" * 64)
    return jwt.encode(payload, key, algorithm=algorithm)
