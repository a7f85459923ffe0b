"""The stores in a real Redis: the script against the windows in memory, step by step, and what Redis may do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, NoScriptError

from livekit_auth_server.core.limits import Charge, Limit
from livekit_auth_server.process.clock import SystemClock
from livekit_auth_server.service.ports import Clock, StoreUnavailable
from livekit_auth_server.stores.acknowledgements_in_redis import RedisAckStore
from livekit_auth_server.stores.limits_in_memory import MemoryLimits
from livekit_auth_server.stores.limits_in_redis import SCRIPT, RedisLimits
from livekit_auth_server.stores.redis_client import TlsFiles, new_client
from livekit_auth_server.stores.redis_link import RedisAway, RedisLink, problem
from support.examples import examples
from support.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis import Redis

WEB = "spiffe://example.org/web"
FIVE, TEN = Limit(5, 1), Limit(10, 60)
WINDOWS = ((FIVE,), (FIVE, TEN), (TEN, FIVE), (TEN,))
TICK = 15625  # microseconds: a fraction that floating point holds exactly
CLOCK = SCRIPT.replace("redis.call('TIME')", "redis.call('MGET', 'test:seconds', 'test:microseconds')")
A, B = "spiffe://example.org/a", "spiffe://example.org/b"
BODY, OTHER_BODY = b"\1" * 32, b"\2" * 32


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def database(redis: RedisServer) -> Iterator[Redis]:
    with redis.client() as client:
        client.flushall()
        yield client


@pytest.fixture
async def link(redis: RedisServer, database: Redis) -> AsyncIterator[RedisLink]:
    link = RedisLink(new_client(f"redis://127.0.0.1:{redis.port}", None, TlsFiles()), "t:", 5.0, lambda _: None)
    await link.open()
    yield link
    await link.close()


class Ticking(Clock):
    """A clock in microseconds, which both stores go by."""

    def __init__(self, database: Redis) -> None:
        self.database, self.microseconds = database, 0
        self.set(1_800_000_000 * 1_000_000)

    def set(self, microseconds: int) -> None:
        self.microseconds = microseconds
        seconds, rest = divmod(microseconds, 1_000_000)
        self.database.mset({"test:seconds": seconds, "test:microseconds": rest})

    def now(self) -> float:
        return self.microseconds / 1_000_000

    def monotonic(self) -> float:
        return self.now()


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 90), st.integers(1, 5), st.sampled_from(WINDOWS)),
        min_size=1,
        max_size=60,
    )
)
@settings(examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_script_decides_as_the_windows_in_memory_do(redis: RedisServer, steps) -> None:
    with redis.client() as database:
        database.flushall()
        clock = Ticking(database)
        link = RedisLink(new_client(f"redis://127.0.0.1:{redis.port}", None, TlsFiles()), "t:", 5.0, lambda _: None)
        await link.open()
        shared, local = RedisLimits(link, None, CLOCK), MemoryLimits(clock)
        for ticks, cost, which in steps:
            clock.set(clock.microseconds + ticks * TICK)
            charges = [Charge(limit, cost) for limit in which]
            assert await shared.take(WEB, charges) == await local.take(WEB, charges)
        await link.close()


async def test_a_redis_clock_that_is_set_back_keeps_what_was_used(link: RedisLink, database: Redis) -> None:
    clock = Ticking(database)
    limits = RedisLimits(link, None, CLOCK)
    for _ in range(5):
        assert await limits.take(WEB, [Charge(FIVE, 1)]) is None
        clock.set(clock.microseconds + 100_000)
    clock.set(clock.microseconds - 3600 * 1_000_000)
    excess = await limits.take(WEB, [Charge(FIVE, 1)])
    assert excess is not None
    assert excess.retry_after == pytest.approx(0.6)
    clock.set(clock.microseconds + 600_000)
    assert await limits.take(WEB, [Charge(FIVE, 1)]) is None
    assert await limits.take(WEB, [Charge(FIVE, 1)]) is not None


async def test_a_window_leaves_redis_when_nothing_in_it_counts_any_more(link: RedisLink, database: Redis) -> None:
    await RedisLimits(link, None).take(WEB, [Charge(FIVE, 1), Charge(TEN, 1)])
    left = {key: database.pttl(key) for key in database.scan_iter("t:limit:*")}
    assert left.keys() == {f"t:limit:{{{WEB}}}:{limit.key}".encode() for limit in (FIVE, TEN)}
    assert 1000 < left[f"t:limit:{{{WEB}}}:5/s|any|".encode()] <= 2000
    assert 60_000 < left[f"t:limit:{{{WEB}}}:10/m|any|".encode()] <= 61_000


async def test_a_window_takes_bounded_room(link: RedisLink, database: Redis) -> None:
    clock = Ticking(database)
    limits, many = RedisLimits(link, None, CLOCK), Limit(9_999_999, 60)
    for _ in range(600):
        clock.set(clock.microseconds + 150_000)
        await limits.take(WEB, [Charge(many, 1000)])
    assert database.hlen(f"t:limit:{{{WEB}}}:{many.key}") <= 256 + 1 + 3


async def test_a_redis_that_forgot_its_scripts_is_told_them_again(link: RedisLink, database: Redis) -> None:
    limits = RedisLimits(link, None)
    assert await limits.take(WEB, [Charge(FIVE, 5)]) is None
    database.script_flush()
    assert await limits.take(WEB, [Charge(FIVE, 1)]) is not None
    with pytest.raises(NoScriptError):
        await link.run("EVALSHA", "0" * 40, 0)
    assert await limits.take(A, [Charge(FIVE, 1)]) is None


async def test_what_was_acknowledged_is_known_and_nothing_else(link: RedisLink, database: Redis) -> None:
    store = RedisAckStore(link, SystemClock(), 100)
    until = await store.acknowledge(A, "alpha", "EV_1", BODY)
    assert until == pytest.approx(SystemClock().now() + 100, abs=2)
    assert await store.is_acknowledged(A, "alpha", "EV_1", BODY)
    others = [(B, "alpha", "EV_1", BODY), (A, "beta", "EV_1", BODY), (A, "alpha", "EV_2", BODY)]
    others += [(A, "alpha", "EV_1", OTHER_BODY), (A, "alpha\0EV_1", "", BODY), (A, "alpha", "EV_1\0", BODY)]
    assert [await store.is_acknowledged(*other) for other in others] == [False] * 6
    (key,) = database.scan_iter("t:ack:*")
    assert 98 <= database.ttl(key) <= 100


async def test_an_acknowledgement_is_forgotten_after_its_lifetime(link: RedisLink) -> None:
    store = RedisAckStore(link, SystemClock(), 1)
    await store.acknowledge(A, "alpha", "EV_1", BODY)
    assert await _eventually_false(lambda: store.is_acknowledged(A, "alpha", "EV_1", BODY))


async def _eventually_false(ask) -> bool:
    for _ in range(60):
        if not await ask():
            return True
        await asyncio.sleep(0.05)
    return False


async def test_redis_out_of_memory_counts_as_unavailable(link: RedisLink, database: Redis) -> None:
    database.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            await RedisAckStore(link, SystemClock(), 100).acknowledge(A, "alpha", "EV_1", BODY)
        with pytest.raises(StoreUnavailable):
            await RedisLimits(link, None).take(WEB, [Charge(FIVE, 1)])
        local = MemoryLimits(SystemClock())
        assert await RedisLimits(link, local).take(WEB, [Charge(FIVE, 5)]) is None
        assert await RedisLimits(link, local).take(WEB, [Charge(FIVE, 1)]) is not None
    finally:
        database.config_set("maxmemory", 0)


async def test_many_commands_at_once_are_all_answered(link: RedisLink) -> None:
    limit = Limit(1000, 60)
    limits = RedisLimits(link, None)
    taken = await asyncio.gather(*(limits.take(WEB, [Charge(limit, 1)]) for _ in range(1500)))
    assert sum(excess is None for excess in taken) == 1000


async def test_a_cancelled_call_disturbs_no_other(link: RedisLink) -> None:
    tasks = [asyncio.create_task(link.run("ECHO", str(number))) for number in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [str(number).encode() for number in range(1, 200, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert await link.run("ECHO", "still") == b"still"


async def test_unavailable_redis_is_asked_nothing() -> None:
    seen: list[bool] = []
    link = RedisLink(new_client(f"redis://127.0.0.1:{free_port()}", None, TlsFiles()), "t:", 0.05, seen.append)
    await link.open()
    with pytest.raises(RedisAway):
        await link.run("PING")
    await link.close()
    assert seen == [False]


def test_an_answer_of_redis_is_never_repeated() -> None:
    for error in (AuthenticationError("WRONGPASS MARKER"), NoScriptError("MARKER"), ValueError("MARKER")):
        assert problem(error) == type(error).__name__


def test_a_client_does_not_show_its_password(tmp_path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text("MARKER\n")
    client = new_client("redis://app@127.0.0.1:1/0", path, TlsFiles())
    pool = client.connection_pool
    assert "MARKER" not in repr(client) + repr(pool) + str(pool.connection_kwargs) + repr(pool.make_connection())
    assert pool.connection_kwargs["credential_provider"].get_credentials() == ("app", "MARKER")
