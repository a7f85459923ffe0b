"""Recent denials in a real Redis: shared, bounded as in memory, and no burden on Redis or on anybody's denial."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.stores.decisions_in_memory import LIFETIME, MemoryDecisions
from livekit_auth_server.stores.decisions_in_redis import RedisDecisions
from livekit_auth_server.stores.redis_client import TlsFiles, new_client
from livekit_auth_server.stores.redis_link import RedisLink
from support.fakes import FakeClock
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

A, B = "spiffe://example.org/a", "spiffe://example.org/b"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def opened(redis: RedisServer) -> AsyncIterator[Callable[..., RedisDecisions]]:
    """Makes stores as several processes have them, on a link each."""
    stores: list[RedisDecisions] = []
    links = [
        RedisLink(new_client(f"redis://127.0.0.1:{redis.port}", None, TlsFiles()), "t:", 0.5, lambda _: None)
        for _ in range(2)
    ]
    for link in links:
        await link.open()

    def make(per_caller: int = 256) -> RedisDecisions:
        store = RedisDecisions(links[len(stores)], MemoryDecisions(FakeClock(), per_caller=per_caller))
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()
    for link in links:
        await link.close()


async def written(store: RedisDecisions) -> None:
    """Waits until nothing waits to be written."""
    assert store._writing is not None
    await asyncio.wait_for(asyncio.shield(store._writing), 10)
    assert not store._waiting


async def test_another_process_finds_a_decision(opened: Callable[..., RedisDecisions], redis: RedisServer) -> None:
    one, other = opened(), opened()
    one.keep(A, "d1", b"\x00one\xff")
    await written(one)
    assert [await store.find("d1") for store in (one, other)] == [b"\x00one\xff"] * 2
    assert await other.find("d2") is None
    with redis.client() as database:
        assert LIFETIME - 5 <= database.ttl("t:decision:d1") <= LIFETIME


async def test_a_process_finds_its_own_before_it_is_written(opened: Callable[..., RedisDecisions]) -> None:
    store = opened()
    store.keep(A, "d1", b"one")
    assert await store.find("d1") == b"one"


async def test_redis_holds_no_more_of_a_caller_than_the_memory(
    opened: Callable[..., RedisDecisions], redis: RedisServer
) -> None:
    store = opened(per_caller=5)
    store.keep(B, "quiet", b"x")
    for number in range(200):
        store.keep(A, f"d{number}", b"x")
        if number % 3 == 0:
            await asyncio.sleep(0.001)
    await written(store)
    store.keep(B, "last", b"x")  # deletes what was left
    await written(store)
    with redis.client() as database:
        kept = {key.decode() for key in database.scan_iter("t:decision:*")}
    assert kept == {f"t:decision:{name}" for name in ("quiet", "last", *(f"d{number}" for number in range(195, 200)))}
    assert store._written == {"quiet", "last", *(f"d{number}" for number in range(195, 200))}


async def test_a_flood_of_one_caller_keeps_no_other_from_being_written(opened: Callable[..., RedisDecisions]) -> None:
    one, other = opened(), opened()
    for number in range(5000):
        one.keep(A, f"d{number}", b"x" * 1000)
    one.keep(B, "quiet", b"x")
    for number in range(5000):
        one.keep(A, f"e{number}", b"x" * 1000)
    assert sum(map(len, one._waiting.values())) <= 2 * 32
    deadline = time.monotonic() + 5
    while await other.find("quiet") is None:
        assert time.monotonic() < deadline
    assert one._waiting[A], "the flood isn't written yet"


async def test_a_flood_of_denials_does_not_make_redis_slow_for_limits(
    opened: Callable[..., RedisDecisions], redis: RedisServer
) -> None:
    store = opened()
    slowest = 0.0
    for number in range(500):
        for caller in range(20):
            store.keep(f"caller{caller}", f"d{number}.{caller}", b"x" * 12 * 1024)
        began = time.monotonic()
        assert await store._link.run("ECHO", "limits") == b"limits"
        slowest = max(slowest, time.monotonic() - began)
    assert store._link.up
    assert slowest < 0.25


@pytest.mark.parametrize("trouble", ["killed", "paused", "full"])
async def test_without_redis_a_process_finds_its_own(
    opened: Callable[..., RedisDecisions], redis: RedisServer, trouble: str
) -> None:
    store = opened()
    store.keep(A, "before", b"before")
    await written(store)
    if trouble == "full":
        with redis.client() as database:
            database.config_set("maxmemory", 1)
    else:
        redis.kill() if trouble == "killed" else redis.pause()
    began = time.monotonic()
    for number in range(300):
        store.keep(A, f"d{number}", b"x")
    assert time.monotonic() - began < 0.1, "a denial waits for nothing"
    await written(store)
    assert await store.find("d299") == b"x"
    assert await store.find("d0") is None
    assert not store._waiting


async def test_an_answer_that_is_no_decision_is_none(opened: Callable[..., RedisDecisions], redis: RedisServer) -> None:
    store = opened()
    with redis.client() as database:
        database.rpush("t:decision:d1", "x")
    assert await store.find("d1") is None
    store.keep(A, "d2", b"x")
    await written(store)
    with redis.client() as database:
        database.delete("t:decision:d2")
        database.rpush("t:decision:d2", "x")
    assert await store.find("d2") == b"x"
