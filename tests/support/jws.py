"""JSON Web Signatures put together by hand, so that a test can get any part of one wrong."""

from __future__ import annotations

import datetime as dt
import hmac
import json
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

HS256 = {"alg": "HS256", "typ": "JWT"}


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def encoded(part: object) -> str:
    """A part of a token: bytes and text as they are, anything else as JSON."""
    data = part if isinstance(part, bytes) else part.encode() if isinstance(part, str) else json.dumps(part).encode()
    return base64url(data)


def sign(payload: Any, secret: bytes, *, header: Any = HS256, digest: str = "sha256") -> str:
    """A token with this header and payload, and a signature that fits them."""
    message = f"{encoded(header)}.{encoded(payload)}"
    return f"{message}.{base64url(hmac.digest(secret, message.encode('ascii'), digest))}"


@contextmanager
def pyjwt_at(now: float) -> Iterator[None]:
    """Lets PyJWT, on which livekit-api stands, see this time."""

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(now, tz)

    with patch("jwt.api_jwt.datetime", Clock):
        yield
