"""The made-up key that the worker gets, and the verification of tokens that it signs with it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import jwt

MAX_TOKEN_BYTES = 16 * 1024
KEY_PREFIX = "APIproxy"
"""The prefix of all made-up keys."""


class NotOurTokenError(Exception):
    """The token isn't signed with the key, or is expired or malformed. Deliberately says no more."""


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A key and secret for one run of one worker."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> LocalKey:
        """Generates a random key."""
        return cls(f"{KEY_PREFIX}{secrets.token_hex(6)}", secrets.token_urlsafe(32))

    def claims(self, authorization: str) -> dict[str, Any]:
        """The claims of the token in an Authorization header: HS256, this key, unexpired. Raises NotOurTokenError."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_BYTES:
            raise NotOurTokenError
        try:
            return jwt.decode(  # PyJWT compares signatures in constant time
                token,
                self.secret,
                algorithms=["HS256"],
                issuer=self.id,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )
        except (jwt.PyJWTError, ValueError):
            raise NotOurTokenError from None
