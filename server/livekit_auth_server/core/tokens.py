"""Checks tokens that LiveKit or this service signed: strict JWTs with HS256, and what their claims say.

Guarantees: the signature is checked in constant time before any claim but "iss" is read, and against the one key that
"iss" names, whatever the number of keys; that key is one that the caller may verify with; "exp" must be there; a
webhook's token is never taken for an access token. Of an unsigned token, no more than `MAX_UNSIGNED` bytes of JSON are
parsed.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

from livekit_auth_server.core.grants import (
    CLAIMS,
    GROUPS,
    PARTICIPANT_KINDS,
    TRACK_SOURCES,
    Grants,
    camel,
)
from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth_server.core.keys import ApiKey, KeySet, Project

LEEWAY = 60  # seconds, as in livekit/protocol and livekit-api
LAST_SECOND = 253_402_300_799  # of the year 9999, where a google.protobuf.Timestamp ends

MAX_UNSIGNED = 64 * 1024  # bytes of payload that are parsed before the signature was checked

_PARTS = 3
_MAX_SHORT_PART = 1366  # characters of header and of signature: 1 KiB
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")  # RFC 4648 section 5 to section 4; "!" is in neither
_ISSUER = re.compile(rb'"iss"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.){1,512}")')
_ISSUERS = 8  # places in a large payload that are looked at


@dataclass(frozen=True, slots=True)
class SignedClaims:
    """The claims of a token whose signature and times hold. Times are seconds since the epoch."""

    claims: Mapping[str, Any]
    project: Project
    key: ApiKey
    not_before: int | None
    expires: int


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """An access token that is valid now; see VerifyTokenResponse for the fields."""

    signed: SignedClaims
    grants: Grants
    room: str
    identity: str
    name: str
    metadata: str
    attributes: Mapping[str, str]
    kind: str
    raw_kind: str
    room_preset: str
    room_config: Mapping[str, Any] | None
    other_claims: tuple[str, ...]


def verify_signed(token: str, keys: KeySet, projects: frozenset[str], now: int) -> SignedClaims:
    """Checks form, key, signature and times of a token, in this order (RFC 7515 section 5.2, RFC 7519 section 7.2).

    Raises TOKEN_MALFORMED, KEY_UNKNOWN, SIGNATURE_INVALID or TOKEN_EXPIRED.
    """
    parts = token.split(".", _PARTS)  # no more, or a long token of dots would take far more memory than it has
    if len(parts) != _PARTS:
        raise _malformed("it isn't three base64url parts")
    if len(parts[0]) > _MAX_SHORT_PART or len(parts[2]) > _MAX_SHORT_PART:
        raise _malformed("its header or signature is longer than LiveKit's")
    header, payload, signature = (_decoded(part) for part in parts)
    _check_header(_object(header))
    claims = _object(payload) if len(payload) <= MAX_UNSIGNED else None
    issuer = _last_issuer(payload) if claims is None else claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise _malformed('it names no key ("iss")')
    project, key = keys.verifying_key(issuer, projects, now)
    if not key.secret.fits(signed_part(token), signature):
        raise Refusal(Reason.SIGNATURE_INVALID, _OTHER_KEY)
    if claims is None:
        claims = _object(payload)
        if claims.get("iss") != key.id:
            raise Refusal(Reason.SIGNATURE_INVALID, _OTHER_KEY)
    expires, not_before = _time(claims, "exp"), _time(claims, "nbf")
    if expires is None:
        raise _malformed('it never expires (no "exp")')
    if now >= expires + LEEWAY:  # RFC 7519 section 4.1.4: not "on or after"
        raise Refusal(Reason.TOKEN_EXPIRED, "the token has expired")
    if not_before is not None and now < not_before - LEEWAY:
        raise Refusal(Reason.TOKEN_EXPIRED, "the token isn't valid yet")
    return SignedClaims(claims, project, key, not_before, expires)


_OTHER_KEY = "the signature doesn't fit the key that the token names"


def verify_access_token(token: str, keys: KeySet, projects: frozenset[str], now: int) -> VerifiedToken:
    """Checks an access token. Raises as `verify_signed` does, and NOT_AN_ACCESS_TOKEN for a webhook's token."""
    signed = verify_signed(token, keys, projects, now)
    claims = signed.claims
    if _typed(claims, "sha256", str):
        raise Refusal(Reason.NOT_AN_ACCESS_TOKEN, "the token signs a webhook and gives no access")
    groups = {name: _group(claims, name, cls) for name, cls in GROUPS.items()}
    video = claims.get("video") or {}
    attributes = _typed(claims, "attributes", dict) or {}
    if not all(isinstance(value, str) for value in attributes.values()):
        raise _malformed('"attributes" holds a value that isn\'t a string')
    raw_kind = _typed(claims, "kind", str) or ""
    kind = raw_kind.lower()  # LiveKit takes any case (auth/grants.go, kindToProto)
    return VerifiedToken(
        signed=signed,
        grants=Grants(**groups),
        room=_typed(video, "room", str) or "",
        identity=_typed(claims, "sub", str) or _typed(claims, "jti", str) or "",  # as livekit/protocol auth/verifier.go
        name=_typed(claims, "name", str) or "",
        metadata=_typed(claims, "metadata", str) or "",
        attributes=attributes,
        kind=kind if kind in PARTICIPANT_KINDS else "",
        raw_kind=raw_kind,
        room_preset=_typed(claims, "roomPreset", str) or "",
        room_config=_typed(claims, "roomConfig", dict),
        other_claims=tuple(sorted(_unmodelled(claims))),
    )


_MODELLED = frozenset(
    {"iss", "sub", "jti", "nbf", "exp", "name", "kind", "metadata", "attributes", "sha256", "roomPreset", "roomConfig"}
)


_SOURCES = camel("can_publish_sources")


def _unmodelled(claims: Mapping[str, Any]) -> list[str]:
    """The names of claims, and of members of grant claims, that this service doesn't model, or not all of."""
    groups = {CLAIMS[name]: {camel(f.name) for f in fields(cls)} for name, cls in GROUPS.items()}
    groups[CLAIMS["video"]].add("room")
    names = [name for name in claims if name not in _MODELLED and name not in groups]
    for name, members in groups.items():
        names += [f"{name}.{member}" for member in claims.get(name) or {} if member not in members]
    sources = (claims.get("video") or {}).get(_SOURCES) or ()
    return [*names, f"video.{_SOURCES}"] if set(sources) - set(TRACK_SOURCES) else names


def _group(claims: Mapping[str, Any], name: str, cls: type[Any]) -> Any:  # noqa: ANN401 - an instance of cls
    """One group of grants from its claim, None when the claim is absent or null."""
    claim = _typed(claims, CLAIMS[name], dict)
    if claim is None:
        return None
    values: dict[str, Any] = {}
    for f in fields(cls):
        value = claim.get(camel(f.name))
        if value is None:
            if f.default is True:
                values[f.name] = None
            continue
        if isinstance(f.default, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise _malformed(f'"{CLAIMS[name]}.{camel(f.name)}" isn\'t a list of strings')
            allowed = f.metadata.get("values", value)
            values[f.name] = tuple(item for item in value if item in allowed)
            if value and not values[f.name]:  # an empty list is every source to LiveKit, a list of unknown ones none
                values["can_publish"] = False
            continue
        if not isinstance(value, str if isinstance(f.default, str) else bool):
            raise _malformed(f'"{CLAIMS[name]}.{camel(f.name)}" has the wrong type')
        values[f.name] = value
    return cls(**values)


def _typed(claims: Mapping[str, Any], name: str, kind: type[Any]) -> Any:  # noqa: ANN401 - an instance of kind
    value = claims.get(name)
    if value is not None and not isinstance(value, kind):
        raise _malformed(f'"{name}" has the wrong type')
    return value


def signed_part(token: str) -> bytes:
    """What the signature is over (RFC 7515 section 5.1): the token's header and payload, as they came."""
    return token[: token.rindex(".")].encode("ascii")


def _is_jwt(kind: object) -> bool:
    return isinstance(kind, str) and kind.upper() == "JWT"


def _check_header(header: Mapping[str, Any]) -> None:
    if header.get("alg") != "HS256":
        raise _malformed("it isn't signed with HS256, the one algorithm that LiveKit uses")
    if header.keys() & {"crit", "b64"} or not _is_jwt(header.get("typ", "JWT")):
        raise _malformed("its header has extensions that LiveKit doesn't use")


def _decoded(part: str) -> bytes:
    """The part's bytes. Base64 with other bits than zero at its end is refused, so that a token has one spelling."""
    try:
        data = a2b_base64(part.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(part) % 4), strict_mode=True)
    except ValueError:
        data = b""
    rest = len(data) % 3
    if not data or (rest and urlsafe_b64encode(data[-rest:]).rstrip(b"=").decode() != part[-rest - 1 :]):
        raise _malformed("it isn't base64url (RFC 4648 section 5)")
    return data


def _last_issuer(payload: bytes) -> str | None:
    """The last "iss" of a payload too large to be parsed unsigned; whether it is the token's own shows afterwards.

    Within a string no name looks so, since its quotes would be escaped. Members that are named so inside other claims
    are skipped as far as they hold no text.
    """
    end = len(payload)
    for _ in range(_ISSUERS):
        end = payload.rfind(b'"iss"', 0, end)
        if end < 0:
            return None
        if found := _ISSUER.match(payload, end):
            try:
                return str(orjson.loads(found[1]))
            except orjson.JSONDecodeError:
                return None
    return None


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _malformed("it doesn't hold JSON") from None
    if not isinstance(value, dict):
        raise _malformed("it doesn't hold a JSON object")
    return value


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate (RFC 7519 section 2) in whole seconds, None when absent."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LAST_SECOND:
        raise _malformed(f'"{name}" isn\'t a time')
    return int(value)


def _malformed(why: str) -> Refusal:
    return Refusal(Reason.TOKEN_MALFORMED, f"this isn't a LiveKit token: {why}")
