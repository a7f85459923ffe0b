"""Each consumer's acknowledgements are its own: remembered for a time, bounded, and nobody else's to lose."""

from __future__ import annotations

import pytest

from livekit_auth_server.service.ports import StoreUnavailable
from livekit_auth_server.stores.acknowledgements_in_memory import MemoryAckStore
from support.fakes import NOW, FakeClock

A, B = "spiffe://example.org/a", "spiffe://example.org/b"
BODY, OTHER_BODY = b"\1" * 32, b"\2" * 32


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(clock: FakeClock) -> MemoryAckStore:
    return MemoryAckStore(clock, lifetime=100, per_caller=3, max_callers=2)


async def known(store: MemoryAckStore, *ids: str, caller: str = A) -> list[str]:
    return [id_ for id_ in ids if await store.is_acknowledged(caller, "alpha", id_, BODY)]


async def test_what_was_acknowledged_is_known(store: MemoryAckStore) -> None:
    assert not await store.is_acknowledged(A, "alpha", "EV_1", BODY)
    assert await store.acknowledge(A, "alpha", "EV_1", BODY) == 1_800_000_100
    assert await store.is_acknowledged(A, "alpha", "EV_1", BODY)


async def test_asking_acknowledges_nothing(store: MemoryAckStore) -> None:
    for _ in range(3):
        assert not await store.is_acknowledged(A, "alpha", "EV_1", BODY)
    assert not store._events


@pytest.mark.parametrize(
    ("caller", "project", "event_id", "body"),
    [
        (B, "alpha", "EV_1", BODY),
        (A, "beta", "EV_1", BODY),
        (A, "alpha", "EV_2", BODY),
        (A, "alpha", "EV_1", OTHER_BODY),
        (A, "alphaEV_1", "", BODY),
    ],
)
async def test_anything_else_is_new(
    store: MemoryAckStore, caller: str, project: str, event_id: str, body: bytes
) -> None:
    await store.acknowledge(A, "alpha", "EV_1", BODY)
    assert not await store.is_acknowledged(caller, project, event_id, body)


async def test_it_is_known_until_its_lifetime_ends(store: MemoryAckStore, clock: FakeClock) -> None:
    await store.acknowledge(A, "alpha", "EV_1", BODY)
    clock.time += 99.9
    assert await known(store, "EV_1") == ["EV_1"]
    clock.time += 0.1
    assert await known(store, "EV_1") == []


async def test_acknowledging_again_starts_its_lifetime_again(store: MemoryAckStore, clock: FakeClock) -> None:
    await store.acknowledge(A, "alpha", "EV_1", BODY)
    clock.time += 90
    assert await store.acknowledge(A, "alpha", "EV_1", BODY) == 1_800_000_190
    clock.time += 90
    assert await known(store, "EV_1") == ["EV_1"]


async def test_a_full_store_forgets_the_callers_own_oldest(store: MemoryAckStore) -> None:
    await store.acknowledge(B, "alpha", "EV_1", BODY)
    for number in (1, 2, 3, 1, 4):
        await store.acknowledge(A, "alpha", f"EV_{number}", BODY)
    assert await known(store, "EV_1", "EV_2", "EV_3", "EV_4") == ["EV_1", "EV_3", "EV_4"]
    assert await known(store, "EV_1", caller=B) == ["EV_1"]


async def test_what_has_expired_makes_room(store: MemoryAckStore, clock: FakeClock) -> None:
    for number in (1, 2, 3):
        await store.acknowledge(A, "alpha", f"EV_{number}", BODY)
    clock.time += 100
    await store.acknowledge(A, "alpha", "EV_4", BODY)
    assert len(store._events[A]) == 1


async def test_a_caller_too_many_is_refused_and_the_others_keep_theirs(store: MemoryAckStore) -> None:
    await store.acknowledge(A, "alpha", "EV_1", BODY)
    await store.acknowledge(B, "alpha", "EV_1", BODY)
    with pytest.raises(StoreUnavailable):
        await store.acknowledge("spiffe://example.org/c", "alpha", "EV_1", BODY)
    assert not await known(store, "EV_1", caller="spiffe://example.org/c")
    await store.acknowledge(A, "alpha", "EV_2", BODY)
    assert await known(store, "EV_1", "EV_2") == ["EV_1", "EV_2"]
