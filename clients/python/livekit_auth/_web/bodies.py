"""Reads a request body up to a limit. A body declared too large is refused before any of it is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from livekit_auth._web.responses import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

READ_SECONDS = 10.0
"""The time limit for a body to arrive."""

_MAX_DIGITS = 20


class TooSlowError(RefusedError):
    """The body didn't arrive in time."""

    def __init__(self) -> None:
        super().__init__(408, f"the body didn't arrive within {READ_SECONDS:.0f} seconds")


async def read_body(headers: Iterable[tuple[bytes, bytes]], chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """Reads the body, at most `limit` bytes. `headers` are those of ASGI, with names in lower case.

    Raises RefusedError: 413 if it is larger, 415 if it is compressed, 400 if its declared length isn't a number; and
    TooSlowError (408) if it takes longer than READ_SECONDS.
    """
    if any(coding.strip().lower() not in {b"", b"identity"} for coding in values(headers, b"content-encoding")):
        raise RefusedError(415, "send the body without a content-encoding")
    too_large = RefusedError(413, f"the body is larger than {limit} bytes")
    for length in values(headers, b"content-length"):
        if not length.isdigit() or len(length) > _MAX_DIGITS:
            raise RefusedError(400, "content-length isn't a number")
        if int(length) > limit:
            raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise TooSlowError from None
    return bytes(body)


def require_json(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises RefusedError (415) unless the only content type is JSON in UTF-8.

    A page of another origin can send other types without a preflight (the Fetch standard's "simple" requests), but
    JSON only if CORS permits it.
    """
    types = values(headers, b"content-type")
    media, *parameters = types[0].decode("latin-1").split(";") if len(types) == 1 else [""]
    charsets = [parameter.replace('"', "").strip().lower() for parameter in parameters]
    if media.strip().lower() != "application/json" or any(c not in {"charset=utf-8", ""} for c in charsets):
        raise RefusedError(415, "send application/json in UTF-8")


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a header, in order."""
    return [value for key, value in headers if key.lower() == name]
