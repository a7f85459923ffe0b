"""The tokens that a worker connects with. The tests control clock, randomness and sleep."""

import asyncio
from dataclasses import replace

import pytest

from livekit_auth import ConfigError, Denied, TokenRequest
from livekit_auth._messages import results
from livekit_auth._messages.status import to_error
from livekit_auth._workers.tokens import LEAST_LIFETIME_SECONDS, MAX_PAUSE_SECONDS, SPREAD_SECONDS, WorkerTokens
from support.fake_auth_server import issued, refusal

LIFETIME = 300
AWAY = refusal("UNAVAILABLE")


class Service:
    """Issues numbered tokens after the failures in `script`."""

    def __init__(self):
        self.script = []
        self.count = 0
        self.in_flight = self.most_in_flight = 0

    async def issue(self, request):  # noqa: ARG002 - one worker, one request
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if self.script:
            error = self.script.pop(0)
            raise error if isinstance(error, Exception) else to_error(error)
        self.count += 1
        return replace(results.issued_token(issued(lifetime=LIFETIME)), token=f"token-{self.count}")


class Time:
    def __init__(self):
        self.now = 1_000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def tokens(service, time):
    return WorkerTokens(service, TokenRequest(role="w"), clock=time, uniform=lambda _, high: high, sleep=time.sleep)


async def test_each_connection_has_its_own_token(tokens):
    assert [(await tokens.fresh()).token for _ in range(3)] == ["token-1", "token-2", "token-3"]


async def test_only_later_connections_are_spread(tokens, time):
    await tokens.fresh()
    assert time.slept == []
    await tokens.fresh()
    assert time.slept == [SPREAD_SECONDS]


async def test_next_connection_uses_the_token_of_the_url_once(tokens, service):
    assert await tokens.url() == "wss://livekit.example.org"
    assert [(await tokens.fresh()).token for _ in range(2)] == ["token-1", "token-2"]
    assert service.count == 2


async def test_unavailable_server_is_retried_with_backoff(tokens, service, time):
    service.script = [AWAY] * 7
    assert (await tokens.fresh()).token == "token-1"
    assert time.slept == [1, 2, 4, 8, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]


async def test_retry_after_is_added_to_the_pause(tokens, service, time):
    service.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=7)]
    await tokens.fresh()
    assert time.slept == [7 + 1]


async def test_last_token_is_reused_while_the_server_is_unavailable(tokens, service):
    await tokens.fresh()
    service.script = [AWAY]
    assert (await tokens.fresh()).token == "token-1"


async def test_token_with_little_time_left_is_not_reused(tokens, service, time):
    await tokens.fresh()
    time.now += LIFETIME - LEAST_LIFETIME_SECONDS
    service.script = [AWAY]
    assert (await tokens.fresh()).token == "token-2"


async def test_denied_worker_does_not_reuse_its_last_token(tokens, service):
    await tokens.fresh()
    service.script = [refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED")]
    with pytest.raises(Denied):
        await tokens.fresh()


HALF_REPLACED = ConfigError("the certificate and the key can't be used together")


async def test_last_token_is_reused_with_half_replaced_certificates(tokens, service):
    await tokens.fresh()
    service.script = [HALF_REPLACED]
    assert (await tokens.fresh()).token == "token-1"


async def test_without_a_token_half_replaced_certificates_are_waited_for(tokens, service, time):
    await tokens.fresh()
    time.now += LIFETIME
    service.script = [HALF_REPLACED]
    assert (await tokens.fresh()).token == "token-2"


async def test_certificates_that_never_worked_are_an_immediate_error(tokens, service, time):
    service.script = [HALF_REPLACED]
    with pytest.raises(ConfigError):
        await tokens.fresh()
    assert time.slept == []


async def test_retry_after_delays_a_worker_by_at_most_one_hour(tokens, service, time):
    service.script = [refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=300 * 86_400)]
    await tokens.fresh()
    assert time.slept == [3_600 + 1]


async def test_at_most_one_request_is_in_flight(tokens, service):
    await asyncio.gather(*(tokens.fresh() for _ in range(5)))
    assert service.most_in_flight == 1


async def test_no_token_is_logged(tokens, service, caplog):
    caplog.set_level("DEBUG")
    service.script = [AWAY]
    await tokens.fresh()
    service.script = [AWAY]
    await tokens.fresh()
    assert "retrying in" in caplog.text
    assert "reusing" in caplog.text
    assert "token-1" not in caplog.text


async def test_newly_requested_token_serves_one_connection(tokens, time):
    """The first token, requested for the URL, had expired before the first connection."""
    await tokens.url()
    time.now += LIFETIME
    assert [(await tokens.fresh()).token for _ in range(2)] == ["token-2", "token-3"]
