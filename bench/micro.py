"""Measures the mint alone, in this process: core.mint.mint, livekit-api's AccessToken and PyJWT take turns."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from typing import TYPE_CHECKING

import jwt
from livekit import api

from livekit_auth_server.core.grants import Grants, VideoGrants
from livekit_auth_server.core.keys import ApiKey, Secret
from livekit_auth_server.core.mint import mint
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Grant, Matcher, Policy, TokenRequest, decide

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_ID, SECRET = "APIbench0001", "bench-secret-that-is-long-enough-0123456789"
ROOM, IDENTITY, NAME, TTL = "consult-2f7a41c09b1d4e55", "user-81c3e7d2", "Dr. Ada Lovelace-Okonkwo", 600
NOW = 1_800_000_000
METADATA = "m" * 1024


def guest_grant(metadata: str = "") -> Grant:
    """A guest's grant as the policy gives it."""
    guest = Grants(video=VideoGrants(room_join=True, can_publish_data=False))
    entry = AllowEntry(
        "allow[0]",
        projects=frozenset({"default"}),
        roles=frozenset({"guest"}),
        rooms=Matcher(prefixes=("consult-",)),
        identities=Matcher(prefixes=("user-",)),
    )
    caller = CallerPolicy("spiffe://dev.example.org/web", (entry,))
    policy = Policy("bench", {"guest": guest}, {caller.id: caller})
    request = TokenRequest("guest", room=ROOM, identity=IDENTITY, name=NAME, metadata=metadata, ttl=TTL)
    decision = decide(policy, caller, request)
    assert isinstance(decision, Grant)
    return decision


def livekit_api_token(metadata: str = "") -> str:
    """The same token by livekit-api."""
    grants = api.VideoGrants(room_join=True, room=ROOM, can_publish_data=False)
    token = api.AccessToken(KEY_ID, SECRET).with_identity(IDENTITY).with_name(NAME).with_metadata(metadata)
    return token.with_grants(grants).with_ttl(dt.timedelta(seconds=TTL)).to_jwt()


def pyjwt_token(metadata: str = "") -> str:
    """The same token by PyJWT, from literal claims, without grants or checks."""
    video = {"roomJoin": True, "room": ROOM, "canPublish": True, "canSubscribe": True, "canPublishData": False}
    claims = {"name": NAME, **({"metadata": metadata} if metadata else {}), "video": video, "sub": IDENTITY}
    return jwt.encode({**claims, "iss": KEY_ID, "nbf": NOW, "exp": NOW + TTL}, SECRET, algorithm="HS256")


def measure(rounds: int, loops: int) -> dict[str, dict[str, float]]:
    """CPU microseconds of each way to make a token: median, minimum and maximum of the rounds."""
    key = ApiKey(KEY_ID, Secret(SECRET.encode()))
    plain, with_metadata = guest_grant(), guest_grant(METADATA)
    assert mint(plain, key, NOW) == pyjwt_token()
    assert mint(with_metadata, key, NOW) == pyjwt_token(METADATA)
    ways: dict[str, Callable[[], str]] = {
        "mint": lambda: mint(plain, key, NOW),
        "mint, 1 KiB metadata": lambda: mint(with_metadata, key, NOW),
        "PyJWT encode": pyjwt_token,
        "livekit-api to_jwt": livekit_api_token,
        "livekit-api, 1 KiB metadata": lambda: livekit_api_token(METADATA),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(_microseconds(way, loops))
    return {name: {"median": statistics.median(t), "min": min(t), "max": max(t)} for name, t in taken.items()}


def _microseconds(way: Callable[[], str], loops: int) -> float:
    started = time.thread_time_ns()
    for _ in range(loops):
        way()
    return (time.thread_time_ns() - started) / loops / 1000
