"""Recent denials in memory: for an hour, bounded per caller and in all, and nobody else's to lose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.stores.decisions_in_memory import LIFETIME, MemoryDecisions
from support.examples import examples
from support.fakes import FakeClock

A, B = "spiffe://example.org/a", "spiffe://example.org/b"
KIB = 1024


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryDecisions:
    return MemoryDecisions(clock, per_caller=3, max_bytes=64 * KIB)


async def test_a_decision_is_found_by_its_id(store: MemoryDecisions) -> None:
    store.keep(A, "d1", b"one")
    store.keep(B, "d2", b"two")
    assert [await store.find(name) for name in ("d1", "d2", "d3", "")] == [b"one", b"two", None, None]


async def test_a_decision_is_forgotten_after_an_hour(store: MemoryDecisions, clock: FakeClock) -> None:
    store.keep(A, "d1", b"one")
    clock.advance(LIFETIME - 1)
    assert await store.find("d1") == b"one"
    clock.advance(1)
    assert await store.find("d1") is None
    assert store.put(B, "d2", b"two") == ["d1"]


async def test_a_wall_clock_that_is_set_changes_nothing(store: MemoryDecisions, clock: FakeClock) -> None:
    store.keep(A, "d1", b"one")
    clock.time += 10 * LIFETIME
    assert await store.find("d1") == b"one"


async def test_a_caller_keeps_its_newest(store: MemoryDecisions) -> None:
    gone = [store.put(A, f"d{number}", b"x") for number in range(5)]
    assert gone == [[], [], [], ["d0"], ["d1"]]
    assert [await store.find(f"d{number}") for number in range(5)] == [None, None, b"x", b"x", b"x"]


async def test_a_caller_that_is_denied_a_lot_costs_the_others_nothing(clock: FakeClock) -> None:
    store = MemoryDecisions(clock)
    store.keep(B, "quiet", b"x")
    hostile = [f"spiffe://example.org/hostile{number}" for number in range(20)]
    for number in range(20_000):
        store.keep(hostile[number % 20], f"d{number}", b"x" * 12 * KIB)
    assert store._total <= store.max_bytes
    assert await store.find("quiet") == b"x"
    assert await store.find("d19999") is not None


async def test_of_two_callers_the_one_that_holds_more_loses_its_oldest(clock: FakeClock) -> None:
    store = MemoryDecisions(clock, max_bytes=56 * KIB)
    for number in range(10):
        store.keep(A, f"a{number}", b"x" * 4 * KIB)
        store.keep(B, f"b{number}", b"x" * KIB)
    store.keep(B, "last", b"x")
    assert [await store.find(f"b{number}") is None for number in range(10)] == [False] * 10
    assert await store.find("a0") is None
    assert await store.find("a9") is not None


@given(
    st.lists(
        st.tuples(st.sampled_from("ABCD"), st.integers(0, 3000), st.sampled_from((0, 1, LIFETIME // 2))), max_size=80
    )
)
@examples(200)
async def test_its_books_are_right_whatever_comes(steps: list[tuple[str, int, int]]) -> None:
    clock = FakeClock()
    store = MemoryDecisions(clock, per_caller=10, max_bytes=16 * KIB)
    kept: set[str] = set()
    for number, (caller, size, seconds) in enumerate(steps):
        clock.advance(seconds)
        kept.add(f"d{number}")
        kept -= set(store.put(caller, f"d{number}", b"x" * size))
        assert set(store._owners) == kept
        assert {one for ones in store._callers.values() for one in ones} == kept
        sizes = {caller: sum(one.size for one in ones.values()) for caller, ones in store._callers.items()}
        assert sizes == store._sizes
        assert store._total == sum(sizes.values()) <= store.max_bytes
        assert all(len(ones) <= store.per_caller for ones in store._callers.values())
