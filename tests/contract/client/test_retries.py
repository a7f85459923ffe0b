"""What is tried again and what isn't, and when a call gives up."""

import asyncio
import time

import pytest

from livekit_auth import AuthClient, Denied, InvalidRequest, RateLimited, ServerError, Unavailable
from support.fake_auth_server import refusal, serving
from support.pki import Authority


async def test_unavailable_is_retried_until_it_succeeds(client, service):
    service.script.extend([refusal("UNAVAILABLE"), refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE")])
    await client.issue_token(role="guest")
    assert len(service.requests) == 3


async def test_a_cancellation_by_the_server_is_retried(client, service):
    service.script.append(refusal("CANCELLED"))
    await client.issue_token(role="guest")
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        ("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", Denied),
        ("INVALID_ARGUMENT", "INVALID_REQUEST", InvalidRequest),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED", RateLimited),
        ("INTERNAL", "INTERNAL", ServerError),
    ],
)
async def test_a_denial_is_never_retried(client, service, code, reason, error):
    service.script.append(refusal(code, reason))
    with pytest.raises(error):
        await client.issue_token(role="guest")
    assert len(service.requests) == 1


async def test_the_last_refusal_is_raised_when_retries_run_out_of_time(client, service):
    service.script.extend([refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE", "no audit")] * 100)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no audit") as caught:
        await client.issue_token(role="guest", timeout=0.5)
    assert caught.value.reason == "AUDIT_UNAVAILABLE"
    assert time.monotonic() - started < 0.9
    assert len(service.requests) > 1


async def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(client, service):
    service.script.append(30.0)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="in time") as caught:
        await client.issue_token(role="guest", timeout=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 1.0
    assert len(service.requests) == 1


async def test_a_callers_own_cancellation_propagates_at_once(client, service):
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


async def test_a_cancellation_between_attempts_propagates_at_once(client, service):
    service.script.extend([refusal("UNAVAILABLE")] * 1000)
    call = asyncio.create_task(client.issue_token(role="guest"))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_server_that_is_away_is_reported_with_what_to_check(service, authority, files):
    async with serving(service, authority) as address:
        pass
    async with AuthClient(address, **files) as client:
        with pytest.raises(Unavailable, match="check the address, the CA and the client certificate"):
            await client.get_caller(timeout=0.3)


async def test_a_server_that_restarts_within_the_deadline_is_reached(service, authority, files):
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


async def test_a_server_of_another_authority_is_not_trusted(service, files):
    async with serving(service, Authority.create("another CA")) as address, AuthClient(address, **files) as client:
        with pytest.raises(Unavailable, match="no TLS agreement"):
            await client.get_caller(timeout=0.5)
    assert service.requests == []


async def test_a_client_certificate_of_another_authority_is_refused(address, service, files, tmp_path):
    cert, key = Authority.create("another CA").issue(uris=["spiffe://example.org/web"]).write(tmp_path, "other")
    async with AuthClient(address, ca=files["ca"], cert=cert, key=key) as client:
        with pytest.raises(Unavailable, match="no TLS agreement"):
            await client.get_caller(timeout=0.5)
    assert service.requests == []
