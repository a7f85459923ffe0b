"""Whatever Redis answers, a call gets its limits' decision or what is configured for a Redis that is away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.core.limits import Charge, Limit
from livekit_auth_server.process.clock import SystemClock
from livekit_auth_server.service.ports import StoreUnavailable
from livekit_auth_server.stores.acknowledgements_in_redis import RedisAckStore
from livekit_auth_server.stores.limits_in_memory import MemoryLimits
from livekit_auth_server.stores.limits_in_redis import RedisLimits
from livekit_auth_server.stores.limits_metrics import LimitMetrics
from livekit_auth_server.stores.redis_client import TlsFiles, new_client
from livekit_auth_server.stores.redis_link import RedisLink
from support.fake_redis import fake_redis
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

WEB, OTHER = "spiffe://example.org/web", "spiffe://example.org/other"
TWO = Limit(2, 1)
CHARGES = [Charge(TWO, 1), Charge(Limit(1000, 60), 1)]


@asynccontextmanager
async def linked(port: int, patience: float = 5.0) -> AsyncIterator[tuple[RedisLink, list[bool]]]:
    """A link to the Redis on this port, and what it said about it: there or away."""
    seen: list[bool] = []
    link = RedisLink(new_client(f"redis://127.0.0.1:{port}", None, TlsFiles()), "t:", patience, seen.append)
    await link.open()
    try:
        yield link, seen
    finally:
        await link.close()


ODD_ANSWERS = {
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "text": b"$5\r\nhello\r\n",
    "status": b"+OK\r\n",
    "a number": b":0\r\n",
    "nothing in it": b"*0\r\n",
    "one": b"*1\r\n:0\r\n",
    "three": b"*3\r\n:0\r\n:0\r\n:0\r\n",
    "texts": b"*2\r\n$1\r\n1\r\n$3\r\n500\r\n",
    "nils": b"*2\r\n$-1\r\n$-1\r\n",
    "arrays": b"*2\r\n*1\r\n:1\r\n*1\r\n:1\r\n",
    "a negative wait": b"*2\r\n:1\r\n:-5000000\r\n",
    "no wait": b"*2\r\n:1\r\n:0\r\n",
    "a wait for nothing": b"*2\r\n:0\r\n:5\r\n",
    "a wait over the window": b"*2\r\n:1\r\n:9000000\r\n",
    "a huge wait": b"*2\r\n:1\r\n:9223372036854775807\r\n",
    "a wait of 400 digits": b"*2\r\n:1\r\n:" + b"9" * 400 + b"\r\n",
    "no such window": b"*2\r\n:3\r\n:500000\r\n",
    "a negative window": b"*2\r\n:-1\r\n:500000\r\n",
    "a key of another type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "a script's error": b"-ERR user_script:36: attempt to perform arithmetic script: 0, on @user_script:36.\r\n",
    "always an unknown script": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
}
USELESS_REDIS = {
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a number of 5,000 digits": b"*2\r\n:1\r\n:" + b"9" * 5000 + b"\r\n",
    "arrays in arrays": b"*1\r\n" * 100_000,
    "another error": b"-ERR unknown command 'EVALSHA'\r\n",
    "no memory": b"-OOM command not allowed when used memory > 'maxmemory'. on @user_script:14.\r\n",
    "no right": b"-NOPERM this user has no permissions\r\n",
    "a busy script": b"-BUSY Redis is busy running a script.\r\n",
}


@pytest.mark.parametrize("answer", ODD_ANSWERS)
async def test_an_odd_answer_counts_as_none_and_concerns_its_caller_alone(answer: str) -> None:
    odd: list[tuple[str, str]] = []
    async with (
        fake_redis(EVALSHA=ODD_ANSWERS[answer], EVAL=ODD_ANSWERS[answer]) as redis,
        linked(redis.port) as (link, seen),
    ):
        refusing = RedisLimits(link, None, odd=lambda *about: odd.append(about))
        with pytest.raises(StoreUnavailable):
            await refusing.take(WEB, CHARGES)
        local = RedisLimits(link, MemoryLimits(SystemClock()))
        assert [await local.take(WEB, CHARGES) is None for _ in range(3)] == [True, True, False]
        assert (link.up, seen) == (True, [True])
        redis.answers["EVALSHA"] = b"*2\r\n:0\r\n:0\r\n"
        assert await refusing.take(OTHER, CHARGES) is None
    assert [caller for caller, _ in odd] == [WEB]


@pytest.mark.parametrize("answer", USELESS_REDIS)
async def test_unusable_redis_counts_as_unavailable(answer: str) -> None:
    async with fake_redis(EVALSHA=USELESS_REDIS[answer]) as redis, linked(redis.port, 1.0) as (link, seen):
        with pytest.raises(StoreUnavailable):
            await RedisLimits(link, None).take(WEB, CHARGES)
        assert seen[:2] == [True, False]
        local = RedisLimits(link, MemoryLimits(SystemClock()))
        assert await local.take(WEB, CHARGES) is None


@pytest.mark.parametrize("answer", [b"$-1\r\n", b"$3\r\nyes\r\n", b":2\r\n", b"*0\r\n", b":-1\r\n"])
async def test_an_odd_answer_is_no_acknowledgement(answer: bytes) -> None:
    async with fake_redis(EXISTS=answer) as redis, linked(redis.port) as (link, seen):
        store = RedisAckStore(link, SystemClock(), 100)
        with pytest.raises(StoreUnavailable):
            await store.is_acknowledged(WEB, "alpha", "EV_1", b"1" * 32)
        assert await store.acknowledge(WEB, "alpha", "EV_1", b"1" * 32)
        redis.answers["SET"] = answer
        with pytest.raises(StoreUnavailable):
            await store.acknowledge(WEB, "alpha", "EV_1", b"1" * 32)
        assert seen == [True]


async def test_redis_with_odd_answers_to_writes_is_unavailable() -> None:
    async with fake_redis(SET=b"$-1\r\n") as redis, linked(redis.port) as (link, seen):
        assert (link.up, seen) == (False, [False])
        redis.answers.clear()
        for _ in range(1000):
            if link.up:
                break
            await asyncio.sleep(0.01)
        assert link.up


@pytest.mark.parametrize(
    "window",
    [
        ("set", "x"),
        ("hset", "head", "1", "tail", "1", "used", "1", "1", "junk"),
        ("hset", "head", "1", "tail", "7", "used", "1"),
        ("hset", "head", "1", "tail", "1", "used", "1e300", "1", "1 99999999999999999 3"),
        ("hset", "head", "1", "tail", "0", "used", "1e300"),
    ],
    ids=str,
)
async def test_a_malformed_window_opens_no_circuit(tmp_path: Path, window: tuple[str, ...]) -> None:
    with RedisServer(tmp_path) as server, server.client() as database:
        async with linked(server.port) as (link, seen):
            limits = RedisLimits(link, MemoryLimits(SystemClock()))
            for kind in (TWO, Limit(1000, 60)):
                database.execute_command(window[0], f"t:limit:{{{WEB}}}:{kind.key}", *window[1:])
            answers = await asyncio.gather(*(limits.take(who, CHARGES) for who in [WEB, OTHER] * 3))
            assert [answer is None for answer in answers[1::2]] == [True, True, False]
            for answer in answers:
                assert answer is None or 0 < answer.retry_after <= 61
            assert seen == [True]
            assert list(database.scan_iter(f"t:limit:{{{OTHER}}}:*")), "the other one's window is shared"


async def test_odd_answers_are_counted_and_logged_in_few_lines() -> None:
    registry = CollectorRegistry()
    gauges = LimitMetrics(registry).redis(SystemClock())
    with capture_logs() as lines:
        for number in range(500):
            gauges.odd(f"spiffe://example.org/{number % 50}", "a key of another type")
        gauges.close()
    assert registry.get_sample_value("livekit_auth_redis_odd_answers_total") == 500
    assert [line.get("caller") for line in lines] == ["spiffe://example.org/0", None]
    assert (lines[1]["count"], len(lines[1]["callers"])) == (499, 8)
    assert lines[1]["problems"] == {"a key of another type": 499}
