"""What is retried, and when a call ends."""

import asyncio
import time
from datetime import timedelta

import pytest

from livekit_auth import AuthClient, Denied, InvalidRequest, RateLimited, ServerError, Unavailable
from support.fake_auth_server import refusal, serving


async def test_unavailable_is_retried_until_it_succeeds(client, service):
    service.script.extend([refusal("UNAVAILABLE"), refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE")])
    await client.issue_token(role="guest")
    assert len(service.requests) == 3


async def test_cancellation_by_the_server_is_retried(client, service):
    service.script.append(refusal("CANCELLED"))
    await client.issue_token(role="guest")
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        ("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", Denied),
        ("INVALID_ARGUMENT", "REQUEST_INVALID", InvalidRequest),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED", RateLimited),
        ("INTERNAL", "INTERNAL", ServerError),
    ],
)
async def test_denial_is_never_retried(client, service, code, reason, error):
    service.script.append(refusal(code, reason))
    with pytest.raises(error):
        await client.issue_token(role="guest")
    assert len(service.requests) == 1


async def test_last_error_is_raised_when_retries_run_out_of_time(client, service):
    service.script.extend([refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE", "no audit")] * 100)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no audit") as caught:
        await client.issue_token(role="guest", timeout=0.5)
    assert caught.value.reason == "AUDIT_UNAVAILABLE"
    assert time.monotonic() - started < 0.9
    assert len(service.requests) > 1


async def test_call_to_a_silent_server_ends_at_the_deadline(client, service):
    service.script.append(30.0)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="in time") as caught:
        await client.issue_token(role="guest", timeout=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 1.0
    assert len(service.requests) == 1


async def test_callers_cancellation_propagates_at_once(client, service):
    service.script.append(30.0)
    call = asyncio.create_task(client.issue_token(role="guest"))
    await service.called.wait()
    started = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - started < 0.2
    await client.get_caller()
    assert len(service.requests) == 2


async def test_cancellation_between_attempts_propagates_at_once(client, service):
    service.script.extend([refusal("UNAVAILABLE")] * 1000)
    call = asyncio.create_task(client.issue_token(role="guest"))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.slow
async def test_calls_use_all_their_time_to_reach_a_returning_server(service, authority, files):
    """Independent of the pauses: the server is back for the last 2.5 s of each call's time."""
    async with serving(service, authority) as address:
        client = AuthClient(address, **files)
        await client.get_caller()
    calls = [asyncio.create_task(client.get_caller(timeout=6.0)) for _ in range(40)]
    await asyncio.sleep(3.5)
    async with serving(service, authority, int(address.split(":")[1])):
        results = await asyncio.gather(*calls, return_exceptions=True)
        await client.close()
    assert [result for result in results if isinstance(result, Exception)] == []


@pytest.mark.parametrize("reason", ["AUDIT_UNAVAILABLE", "OVERLOADED"])
async def test_retry_after_is_respected(client, service, reason):
    service.script.append(refusal("UNAVAILABLE", reason, retry_after=1))
    started = time.monotonic()
    await client.issue_token(role="guest")
    assert time.monotonic() - started >= 1.0
    assert len(service.requests) == 2


async def test_retry_after_longer_than_the_call_ends_it_at_once(client, service):
    service.script.append(refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE", retry_after=60))
    with pytest.raises(Unavailable) as caught:
        await client.issue_token(role="guest")
    assert caught.value.retry_after == timedelta(seconds=60)
    assert len(service.requests) == 1


async def test_server_that_restarts_within_the_deadline_is_reached(service, authority, files):
    async with serving(service, authority) as address:
        client = AuthClient(address, **files)
        await client.get_caller()
    call = asyncio.create_task(client.get_caller())
    await asyncio.sleep(0.5)
    assert not call.done()
    async with serving(service, authority, int(address.split(":")[1])):
        await call
        await client.close()
    assert len(service.requests) == 2
