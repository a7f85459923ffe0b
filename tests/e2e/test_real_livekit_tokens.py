"""Whether this service and a real LiveKit server agree about the form, key, signature and times of tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from e2e import tokens
from e2e.secrecy import Forged
from e2e.signalling import signalling, worker
from livekit_auth import Denied, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.deployment import ApiKey

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "consult-tokens"

# What a token is like, how to make it, whether LiveKit takes it, and why this service refuses it ("" when it doesn't).
CASES: dict[str, tuple[Callable[[ApiKey], str], bool, str]] = {
    "valid": (lambda key: key.sign(tokens.guest_claims(ROOM)), True, ""),
    "expired within the leeway": (lambda key: tokens.expired(key, ROOM, 30), True, ""),
    "expired": (lambda key: tokens.expired(key, ROOM, 120), False, "TOKEN_EXPIRED"),
    "valid soon, within the leeway": (lambda key: tokens.not_yet_valid(key, ROOM, 30), True, ""),
    "valid later": (lambda key: tokens.not_yet_valid(key, ROOM, 120), False, "TOKEN_EXPIRED"),
    "unknown key": (lambda _: tokens.of_an_unknown_key(ROOM), False, "KEY_UNKNOWN"),
    "wrong secret": (lambda key: tokens.with_a_wrong_secret(key, ROOM), False, "SIGNATURE_INVALID"),
    "tampered": (
        lambda key: tokens.tampered(key.sign(tokens.guest_claims(ROOM)), "board-1"),
        False,
        "SIGNATURE_INVALID",
    ),
    "unsigned": (lambda key: tokens.unsigned(key, ROOM), False, "TOKEN_MALFORMED"),
    "no key named": (lambda key: key.sign(tokens.guest_claims(ROOM, iss="")), False, "TOKEN_MALFORMED"),
    "not a token": (lambda _: "eyJ.eyJ.eyJ", False, "TOKEN_MALFORMED"),
    # Stricter than LiveKit 1.8, on purpose:
    "another algorithm": (lambda key: tokens.signed_with_hs512(key, ROOM), True, "TOKEN_MALFORMED"),
    "valid for ever": (lambda key: key.sign(tokens.guest_claims(ROOM, exp=None)), True, "TOKEN_MALFORMED"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_token_is_verified_as_livekit_verifies_it(deployment, callers, case):
    make, livekit_takes_it, reason = CASES[case]
    token = Forged(make(deployment.key), (await _any_token(callers)).url)
    assert await _livekit_takes(token) is livekit_takes_it
    assert await _refusal(callers.gateway, token) == reason


async def test_a_gateway_verifies_an_issued_token_without_the_secret(deployment, callers, room):
    issued = await callers.web.issue_token(
        room=room, identity="user-1", role="guest", name="Zoë", metadata="m", attributes={"a": "1"}
    )
    verified = await callers.gateway.verify_token(issued.token)
    assert (verified.room, verified.identity, verified.name) == (room, "user-1", "Zoë")
    assert (verified.metadata, verified.attributes) == ("m", {"a": "1"})
    assert (verified.issue_time, verified.expire_time) == (issued.issue_time, issued.expire_time)
    assert verified.grants == issued.grants
    assert (verified.key_id, verified.project) == (deployment.key.id, "default")
    assert not verified.other_claims


async def test_a_token_that_livekit_has_refreshed_is_verified_too(callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with signalling(issued) as signals:
        refreshed = (await signals.receive("refresh_token")).refresh_token
    assert refreshed != issued.token
    verified = await callers.gateway.verify_token(refreshed)
    assert (verified.room, verified.identity) == (room, "user-1")
    assert verified.grants == issued.grants
    assert not verified.other_claims


async def test_a_token_that_livekit_gives_an_agents_job_is_verified_too(callers, room):
    issued = await callers.agents.issue_token(role="agent-worker")
    async with worker(issued) as connection:
        await connection.register("verified")
        assigned = await connection.simulate_job(room)
    verified = await callers.gateway.verify_token(assigned)
    assert (verified.room, verified.identity, verified.kind) == (room, "worker", "agent")
    assert verified.grants.video.room_join


async def test_who_may_not_verify_tokens_learns_nothing_of_them(callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    with pytest.raises(Denied) as denied:
        await callers.web.verify_token(issued.token)
    assert denied.value.reason == "PROJECT_NOT_PERMITTED"


async def test_the_service_writes_no_token_and_no_secret(deployment, callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    forged = tokens.of_an_unknown_key(room)
    for token in (issued.token, forged):
        await _refusal(callers.gateway, Forged(token, issued.url))
    log = await asyncio.to_thread(deployment.log.read_text)
    trail = await asyncio.to_thread((deployment.directory / "audit" / "audit.0.jsonl").read_text)
    assert issued.decision_id in trail
    shown = [secret for secret in (issued.token, forged, deployment.key.secret) if secret in log + trail]
    assert not shown


async def _any_token(callers):
    return await callers.web.issue_token(room=ROOM, identity="user-1", role="guest")


async def _livekit_takes(token):
    """Whether LiveKit would let the bearer join; its clients ask this when they were refused."""
    url = token.url.replace("ws:", "http:") + "/rtc/validate"
    headers = {"Authorization": f"Bearer {token.token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert response.status in (200, 401)
        return response.status == 200


async def _refusal(client, token):
    """Why the service refuses a token; empty when it doesn't."""
    try:
        await client.verify_token(token.token)
    except VerificationFailed as error:
        return error.reason
    return ""
