"""A token that renews itself. The tests control the clock and the randomness."""

import asyncio
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from livekit_auth import (
    ConfigError,
    Denied,
    RateLimited,
    ServerError,
    TokenRequest,
    TokenSource,
    Unavailable,
    sync,
)
from livekit_auth._messages.results import issued_token
from livekit_auth._messages.status import to_error
from support.fake_auth_server import issued, refusal

LIFETIME = 600.0


class FakeClient:
    """Issues numbered tokens. `script` has errors to raise first, `gate` delays requests."""

    def __init__(self):
        self.script = []
        self.requests = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lifetime = LIFETIME

    async def issue(self, request):
        self.requests.append(request)
        await self.gate.wait()
        if self.script:
            error = self.script.pop(0)
            raise error if isinstance(error, Exception) else to_error(error)
        token = issued_token(issued(lifetime=int(self.lifetime)))
        return replace(token, token=f"token-{len(self.requests)}")


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def latest(low, high):
    """Draws the longest lead."""
    return high


def soonest(low, high):
    return low


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source(client, clock):
    return TokenSource(client, TokenRequest(role="guest"), clock=clock, uniform=latest)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def looked_at(source):
    """The result of one call, after any renewal that it started has ended."""
    await source.token()
    await settle()
    return await source.token()


async def test_first_call_issues_and_the_next_returns_the_same_token(source, client):
    first = await source.token()
    assert await source.token() is first
    assert client.requests == [TokenRequest(role="guest")]


@pytest.mark.parametrize(("dice", "renewed_at"), [(latest, 400.0), (soonest, 500.0)])
async def test_token_is_renewed_between_two_thirds_and_five_sixths_of_its_life(client, clock, dice, renewed_at):
    source = TokenSource(client, TokenRequest(role="guest"), clock=clock, uniform=dice)
    await source.token()
    clock.now += renewed_at - 0.1
    assert (await looked_at(source)).token == "token-1"
    clock.now += 0.1
    assert (await looked_at(source)).token == "token-2"


async def test_renew_ahead_sets_the_earliest_moment(client, clock):
    ahead = timedelta(seconds=60)
    source = TokenSource(client, TokenRequest(role="guest"), renew_ahead=ahead, clock=clock, uniform=latest)
    await source.token()
    clock.now += LIFETIME - 60.1
    assert (await looked_at(source)).token == "token-1"
    clock.now += 0.1
    assert (await looked_at(source)).token == "token-2"


async def test_renew_ahead_is_limited_to_half_of_the_lifetime(client, clock):
    ahead = timedelta(hours=1)
    source = TokenSource(client, TokenRequest(role="guest"), renew_ahead=ahead, clock=clock, uniform=latest)
    await source.token()
    clock.now += LIFETIME / 2 - 0.1
    assert (await looked_at(source)).token == "token-1"


async def test_expired_token_is_never_returned(source, client, clock):
    await source.token()
    clock.now += LIFETIME
    client.script = [refusal("UNAVAILABLE")]
    with pytest.raises(Unavailable):
        await source.token()
    assert (await source.token()).token == "token-3"


async def test_lifetime_starts_at_the_request(source, client, clock):
    client.gate.clear()
    call = asyncio.create_task(source.token())
    await settle()
    clock.now += 5.0
    client.gate.set()
    await call
    clock.now += LIFETIME - 5.0
    client.script = [refusal("UNAVAILABLE")]
    with pytest.raises(Unavailable):
        await source.token()


async def test_concurrent_callers_share_one_request(source, client):
    client.gate.clear()
    calls = [asyncio.create_task(source.token()) for _ in range(10)]
    await settle()
    client.gate.set()
    tokens = await asyncio.gather(*calls)
    assert len(client.requests) == 1
    assert {token.token for token in tokens} == {"token-1"}


async def test_concurrent_callers_share_a_failure(source, client):
    client.gate.clear()
    client.script = [refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED")]
    calls = [asyncio.create_task(source.token()) for _ in range(5)]
    await settle()
    client.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert len(client.requests) == 1
    assert [type(result) for result in results] == [Denied] * 5
    assert len({id(result) for result in results}) == 5


@pytest.mark.parametrize("cancelled", [0, 2])
async def test_cancelled_caller_cancels_no_other(source, client, cancelled):
    client.gate.clear()
    calls = [asyncio.create_task(source.token()) for _ in range(4)]
    await settle()
    calls[cancelled].cancel()
    await settle()
    client.gate.set()
    results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(cancelled), asyncio.CancelledError)
    assert len({token.token for token in results}) == 1


async def test_no_caller_waits_for_a_renewal_while_the_token_is_valid(source, client, clock):
    await source.token()
    clock.now += 450.0
    client.gate.clear()
    for _ in range(3):
        async with asyncio.timeout(1):
            assert (await source.token()).token == "token-1"
    client.gate.set()
    await settle()
    assert (await source.token()).token == "token-2"
    assert len(client.requests) == 2


async def test_cancelled_caller_keeps_the_renewal_and_the_backoff(source, client, clock):
    await source.token()
    clock.now += LIFETIME
    client.gate.clear()
    client.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=60)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.token(), 0.01)
    client.gate.set()
    await settle()
    with pytest.raises(RateLimited):
        await source.token()
    assert len(client.requests) == 2
    clock.now += 60.0
    client.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.token(), 0.01)
    client.gate.set()
    await settle()
    assert (await source.token()).token == "token-3"
    assert len(client.requests) == 3


async def test_without_a_token_retry_after_is_respected(source, client, clock):
    client.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=2)] * 9

    async def calls():
        for _ in range(10):
            with pytest.raises(RateLimited) as caught:
                await source.token()
            assert caught.value.retry_after is not None
            assert timedelta(0) <= caught.value.retry_after <= timedelta(seconds=2)

    await asyncio.gather(*(calls() for _ in range(50)))
    assert len(client.requests) == 1
    clock.now += 1.5
    with pytest.raises(RateLimited) as caught:
        await source.token()
    assert caught.value.retry_after == timedelta(seconds=0.5)
    clock.now += 0.5
    await asyncio.gather(*(calls() for _ in range(50)))
    assert len(client.requests) == 2


async def test_retry_after_delays_a_source_by_at_most_one_hour(source, client, clock):
    client.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=300 * 86_400)]
    with pytest.raises(RateLimited):
        await source.token()
    clock.now += 3_600.0
    assert (await source.token()).token == "token-2"


async def test_half_replaced_certificates_at_renewal_keep_the_token(source, client, clock, caplog):
    await source.token()
    clock.now += 450.0
    client.script = [ConfigError("the certificate and the key can't be used together")]
    assert (await looked_at(source)).token == "token-1"
    assert "can't be used together" in caplog.text
    clock.now += 2.0
    assert (await looked_at(source)).token == "token-3"


async def test_without_a_token_unusable_certificates_are_raised(source, client):
    client.script = [ConfigError("no")]
    with pytest.raises(ConfigError):
        await source.token()
    assert (await source.token()).token == "token-2"


@pytest.mark.parametrize("lifetime", [0, -5])
async def test_token_without_a_lifetime_is_a_server_error(source, client, lifetime):
    client.lifetime = lifetime
    with pytest.raises(ServerError, match="lifetime"):
        await source.token()


async def test_failed_renewal_keeps_the_token_and_delays_the_next(source, client, clock, caplog):
    await source.token()
    clock.now += 450.0
    client.script = [refusal("UNAVAILABLE"), refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED")]
    assert (await looked_at(source)).token == "token-1"
    assert "Token renewal failed" in caplog.text
    assert (await looked_at(source)).token == "token-1"
    assert len(client.requests) == 2
    clock.now += 2.0
    assert (await looked_at(source)).token == "token-1"
    clock.now += 3.9
    assert (await looked_at(source)).token == "token-1"
    assert len(client.requests) == 3
    clock.now += 0.1
    assert (await looked_at(source)).token == "token-4"


async def test_pause_after_a_failure_never_outlasts_the_token(source, client, clock):
    await source.token()
    clock.now += LIFETIME - 0.5
    client.script = [refusal("UNAVAILABLE")]
    assert (await looked_at(source)).token == "token-1"
    clock.now += 0.5
    assert (await source.token()).token == "token-3"


async def test_pause_between_failures_is_bounded(source, client, clock, caplog):
    caplog.set_level(logging.CRITICAL)
    client.lifetime = 200_000
    await source.token()
    clock.now += 140_000
    client.script = [refusal("UNAVAILABLE")] * 1_200
    for sent in range(2, 1_200):
        await looked_at(source)
        assert len(client.requests) == sent
        clock.now += 30.0


async def test_rate_limit_delays_the_next_request(source, client, clock):
    await source.token()
    clock.now += 450.0
    client.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=60)]
    await looked_at(source)
    clock.now += 59.9
    await looked_at(source)
    assert len(client.requests) == 2
    clock.now += 0.1
    assert (await looked_at(source)).token == "token-3"


async def test_failed_first_request_raises_and_the_next_call_retries(source, client):
    client.script = [refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE")]
    with pytest.raises(Unavailable):
        await source.token()
    assert (await source.token()).token == "token-2"


async def test_other_exceptions_propagate(source, client):
    def broken(_request):
        raise RuntimeError("the client is closed")

    client.issue = broken
    with pytest.raises(RuntimeError, match="closed"):
        await source.token()


def test_validate_only_request_is_refused(client):
    with pytest.raises(ValueError, match="validate_only"):
        TokenSource(client, TokenRequest(role="guest", validate_only=True))


def test_renew_ahead_must_be_above_zero(client):
    with pytest.raises(ValueError, match="above zero"):
        TokenSource(client, TokenRequest(role="guest"), renew_ahead=timedelta(0))


def test_threads_share_one_request():
    class Client:
        requests = itertools.count(1)
        gate = threading.Event()

        def issue(self, _request):
            self.gate.wait(5)
            return replace(issued_token(issued()), token=f"token-{next(self.requests)}")

    source = sync.TokenSource(Client(), TokenRequest(role="guest"))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(source.token) for _ in range(8)]
        Client.gate.set()
        assert {call.result().token for call in calls} == {"token-1"}


def test_thread_gets_the_held_token_while_another_thread_renews_it():
    class Client:
        requests = itertools.count(1)
        gate = threading.Event()

        def issue(self, _request):
            if (number := next(self.requests)) > 1:
                self.gate.wait(5)
            return replace(issued_token(issued()), token=f"token-{number}")

    clock = Clock()
    source = sync.TokenSource(Client(), TokenRequest(role="guest"), clock=clock)
    assert source.token().token == "token-1"
    clock.now += 550.0
    assert [source.token().token for _ in range(3)] == ["token-1"] * 3
    Client.gate.set()
    source._flight.join(source._renew)
    assert source.token().token == "token-2"
    assert next(Client.requests) == 3


def test_without_a_new_thread_tokens_are_still_returned(monkeypatch):
    class Client:
        requests = itertools.count(1)

        def issue(self, _request):
            return replace(issued_token(issued()), token=f"token-{next(self.requests)}")

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    clock = Clock()
    source = sync.TokenSource(Client(), TokenRequest(role="guest"), clock=clock)
    assert source.token().token == "token-1"
    clock.now += 550.0
    assert source.token().token == "token-1"
    clock.now += 50.0
    assert source.token().token == "token-2"
