"""Tokens that LiveKit must refuse, and some that it takes: what this service would never issue."""

from __future__ import annotations

import base64
import json
import secrets
import time
import warnings
from typing import Any

import jwt

from e2e.deployment import ApiKey
from e2e.secrecy import claims


def guest_claims(room: str, **changes: Any) -> dict[str, Any]:
    """The claims of a guest's token as the service issues it, with changes; a change to None takes a claim out."""
    now = int(time.time())
    original = {"video": {"roomJoin": True, "room": room}, "sub": "user-1", "nbf": now, "exp": now + 600}
    return {name: value for name, value in {**original, **changes}.items() if value is not None}


def expired(key: ApiKey, room: str, seconds_ago: int) -> str:
    """A token that was valid once. Signed here: a real one would take a minute to pass LiveKit's leeway of 60 s."""
    now = int(time.time())
    return key.sign(guest_claims(room, nbf=now - 3600, exp=now - seconds_ago))


def not_yet_valid(key: ApiKey, room: str, in_seconds: int) -> str:
    """A token that will be valid."""
    now = int(time.time())
    return key.sign(guest_claims(room, nbf=now + in_seconds, exp=now + 3600))


def of_an_unknown_key(room: str) -> str:
    """A well-formed token, signed with a key that nobody has configured."""
    return ApiKey("APIunknown", secrets.token_urlsafe(32)).sign(guest_claims(room))


def with_a_wrong_secret(key: ApiKey, room: str) -> str:
    """A token that names a known key and was signed with another secret."""
    return ApiKey(key.id, secrets.token_urlsafe(32)).sign(guest_claims(room))


def unsigned(key: ApiKey, room: str) -> str:
    """A token that names a known key and the algorithm "none"."""
    no_key: Any = None  # what PyJWT takes for "none", though its types don't say so
    return jwt.encode({"iss": key.id, **guest_claims(room)}, no_key, algorithm="none")


def signed_with_hs512(key: ApiKey, room: str) -> str:
    """A token that is right but for its algorithm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a longer secret would be better for it
        return jwt.encode({"iss": key.id, **guest_claims(room)}, key.secret, algorithm="HS512")


def tampered(token: str, room: str) -> str:
    """A token whose room was changed after it was signed."""
    header, _, signature = token.split(".")
    changed = claims(token)
    changed["video"]["room"] = room
    payload = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    return f"{header}.{payload}.{signature}"
