"""The made-up key that the worker is given, and the check of the tokens that it signs with it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import jwt

MAX_TOKEN_BYTES = 16 * 1024
KEY_PREFIX = "APIproxy"
"""With which every made-up key begins."""


class NotOurTokenError(Exception):
    """The bearer doesn't hold the key, or the token is expired or malformed. Says no more, on purpose."""


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A key and secret for one run of one worker."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> LocalKey:
        """A random one."""
        return cls(f"{KEY_PREFIX}{secrets.token_hex(6)}", secrets.token_urlsafe(32))

    def claims(self, authorization: str) -> dict[str, Any]:
        """The claims of the token in an Authorization header: HS256, ours, and in time. Raises NotOurTokenError."""
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
