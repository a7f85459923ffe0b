"""Turns a `Grant` into a LiveKit access token: a JWT (RFC 7519) signed with HS256.

Guarantees: the claims are livekit-api's, in its order, and the whole token equals what livekit-api and PyJWT make of
the same input to the byte; nothing but the schema of core.grants and the members written here can appear in it.

The JSON is put together from parts that were made once for the grants and the key (docs/adr/0002). Strings go through
the encoder that json.dumps uses, which PyJWT calls.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

from livekit_auth_server.core.grants import claims_template, room_member

if TYPE_CHECKING:
    from livekit_auth_server.core.keys import ApiKey
    from livekit_auth_server.core.policy import Grant

# The encoded header: alg HS256, typ JWT.
_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."


def mint(grant: Grant, key: ApiKey, now: int) -> str:
    """Mints the token that the grant permits, valid from `now` (seconds since the epoch) for the grant's ttl.

    "nbf" is the issue time and never earlier: LiveKit Cloud refuses tokens whose nbf lies before a participant's
    removal.
    """
    message = _HEADER + urlsafe_b64encode(claims(grant, key, now).encode("ascii")).rstrip(b"=")
    return (message + b"." + urlsafe_b64encode(key.secret.sign(message)).rstrip(b"=")).decode("ascii")


def token_size(grant: Grant, key: ApiKey, now: int) -> int:
    """The length in bytes of the token that `mint` would make."""
    return len(_HEADER) + _unpadded(len(claims(grant, key, now))) + 1 + _unpadded(32)


def claims(grant: Grant, key: ApiKey, now: int) -> str:
    """The token's payload: compact JSON in ASCII, members in livekit-api's order."""
    request = grant.request
    before, between, after = claims_template(grant.grants)
    return "".join(
        (
            "{",
            f'"name":{quoted(request.name)},' if request.name else "",
            f'"kind":{quoted(request.kind)},' if request.kind else "",
            f'"metadata":{quoted(request.metadata)},' if request.metadata else "",
            before,
            room_member(request.room) if before else "",
            between,
            after,
            _attributes(request.attributes) if request.attributes else "",
            f'"roomPreset":{quoted(request.room_preset)},' if request.room_preset else "",
            f'"roomConfig":{request.room_config.claim},' if request.room_config else "",
            f'"sub":{quoted(request.identity)},',
            f'{key.issuer_member},"nbf":{now},"exp":{now + grant.ttl}}}',
        )
    )


def _attributes(attributes: tuple[tuple[str, str], ...]) -> str:
    members = ",".join(f"{quoted(key)}:{quoted(value)}" for key, value in attributes)
    return f'"attributes":{{{members}}},'


def _unpadded(size: int) -> int:
    return (size * 4 + 2) // 3
