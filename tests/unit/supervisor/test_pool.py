"""The supervisor's decisions, with workers that are told when to serve, fail and die."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.readiness import Readiness
from livekit_auth_server.supervisor import pool as module
from livekit_auth_server.supervisor.backoff import Backoff
from livekit_auth_server.supervisor.pool import Pool
from livekit_auth_server.supervisor.worker_process import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ORDERS = WorkerOptions(Path("server.yaml"), "127.0.0.1:7443")


class FakeWorker:
    """Serves at once, unless it is made otherwise."""

    def __init__(self, number: int, failure: ConfigError | None = None, *, serves: bool = True) -> None:
        self.number, self.pid, self.failure = number, 1000 + number, failure
        self.code: int | None = None
        self.serving_since = 0.0 if serves and failure is None else None
        self.stopped = self.hangs = False
        self.patience = 0.0
        self.reloads = 0
        self.state = Readiness() if serves else Readiness(("starting",))
        self._ended, self._left = asyncio.Event(), asyncio.Event()
        if failure is not None:
            self.die()

    def die(self) -> None:
        self.code = -9
        self._ended.set()
        self._left.set()

    @property
    def gone(self) -> bool:
        return self._ended.is_set()

    def readiness(self) -> Readiness:
        return Readiness(("ended",)) if self._ended.is_set() else self.state

    async def until_serving(self) -> bool:
        if self.failure is not None:
            raise self.failure
        if self.serving_since is None:
            await self._ended.wait()
        return self.serving_since is not None

    async def until_ready(self) -> bool:
        return await self.until_serving()

    async def ended(self) -> None:
        await self._ended.wait()

    async def left(self) -> None:
        await self._left.wait()

    def reload(self) -> None:
        self.reloads += 1

    def end_if_hung(self, _patience: float) -> bool:
        """Hangs once."""
        hangs, self.hangs = self.hangs, False
        if hangs:
            self.die()
        return hangs

    async def stop(self, patience: float) -> None:
        self.patience = patience
        self._left.set()
        self.stopped = True
        await asyncio.sleep(0.01)
        self.die()


class Fleet:
    """Makes the workers, and remembers them all. `next` says how those to come are made."""

    def __init__(self) -> None:
        self.all: list[FakeWorker] = []
        self.next: list[dict[str, object]] = []

    async def spawn(self, _orders: WorkerOptions, number: int) -> FakeWorker:
        alive = {worker.number for worker in self.all if worker.code is None}
        assert number not in alive, "two workers with one number would write one audit file"
        worker = FakeWorker(number, **(self.next.pop(0) if self.next else {}))  # type: ignore[arg-type]
        self.all.append(worker)
        return worker

    def numbers(self) -> list[int]:
        return sorted(worker.number for worker in self.all if worker.code is None)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(module, "READY", 0.2)
    monkeypatch.setattr("livekit_auth_server.supervisor.backoff.FIRST", 0.01)
    return Fleet()


async def go(pool: Pool) -> None:
    await pool.start()
    await pool.run()


@asynccontextmanager
async def running(fleet: Fleet, count: int = 3) -> AsyncIterator[Pool]:
    pool = Pool(ORDERS, count, 1.0, fleet.spawn)  # type: ignore[arg-type]
    task = asyncio.create_task(go(pool))
    await until(lambda: pool.phase == "serving" or task.done())
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.wait({task})
        await pool.stop()
        assert task.cancelled(), task.exception()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a test
            await asyncio.sleep(0.002)


async def test_a_worker_that_dies_is_followed_by_one_with_its_number(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        assert pool.readiness().ready
        fleet.all[1].die()
        assert not pool.readiness().ready
        await until(lambda: len(fleet.all) == 4)
        assert fleet.all[3].number == 1
        await until(lambda: pool.readiness().ready)
        assert pool.restarts == 1


async def test_all_that_die_at_once_come_back_with_their_numbers(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        for worker in fleet.all[:3]:
            worker.die()
        await until(lambda: pool.readiness().ready)
        assert fleet.numbers() == [0, 1, 2]


async def test_a_worker_that_hangs_is_counted_and_replaced(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECOND", 0.01)
    async with running(fleet) as pool:
        fleet.all[1].hangs = True
        await until(lambda: len(fleet.all) == 4 and pool.readiness().ready)
        assert fleet.all[3].number == 1
        assert (pool.hung, pool.restarts) == (1, 1)


async def test_a_worker_that_hangs_while_all_start_is_ended(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECOND", 0.01)
    fleet.next = [{}, {"serves": False}]
    pool = Pool(ORDERS, 2, 1.0, fleet.spawn)  # type: ignore[arg-type]
    starting = asyncio.create_task(pool.start())
    await until(lambda: len(fleet.all) == 2)
    fleet.all[1].hangs = True
    await asyncio.wait_for(starting, 5)
    assert (pool.phase, pool.hung) == ("serving", 1)
    await pool.stop()


async def test_workers_that_all_die_at_the_first_start_end_all_with_a_reason(fleet: Fleet) -> None:
    fleet.next = [{"serves": False}] * 2
    pool = Pool(ORDERS, 2, 1.0, fleet.spawn)  # type: ignore[arg-type]
    starting = asyncio.create_task(pool.start())
    await until(lambda: len(fleet.all) == 2)
    for worker in fleet.all:
        worker.die()
    with pytest.raises(ConfigError, match=r"^workers: no worker served; exit code -9 \(negative for a signal\)$"):
        await asyncio.wait_for(starting, 5)
    await pool.stop()


async def test_one_that_dies_at_the_first_start_is_replaced_while_another_serves(fleet: Fleet) -> None:
    fleet.next = [{}, {"serves": False}]
    pool = Pool(ORDERS, 2, 1.0, fleet.spawn)  # type: ignore[arg-type]
    task = asyncio.create_task(go(pool))
    await until(lambda: len(fleet.all) == 2)
    fleet.all[1].die()
    await until(lambda: pool.phase == "serving" and pool.readiness().ready)
    assert pool.restarts == 1
    task.cancel()
    await asyncio.wait({task})
    await pool.stop()


async def test_a_bad_setting_at_the_first_start_ends_all_with_its_words(fleet: Fleet) -> None:
    fleet.next = [{}, {"failure": ConfigError("policy.yaml", "bad", 3)}, {}]
    pool = Pool(ORDERS, 3, 1.0, fleet.spawn)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^policy\.yaml:3: bad$"):
        await pool.start()
    await pool.stop()
    assert fleet.numbers() == []


async def test_a_bad_setting_later_keeps_the_others_and_is_tried_again(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        fleet.next = [{"failure": ConfigError("policy.yaml", "bad", 3)}] * 2
        fleet.all[0].die()
        await until(lambda: len(fleet.all) == 6)
        await until(lambda: pool.readiness().ready)
        assert pool.restarts == 3


async def test_a_rolling_restart_replaces_all_one_by_one(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        old = list(fleet.all)
        pool.roll()
        deadline = time.monotonic() + 5
        while not all(worker.code for worker in old):
            assert time.monotonic() < deadline
            assert pool.readiness().ready
            assert sum(worker.code is None for worker in fleet.all) <= 4
            assert sum(worker.stopped and worker.code is None for worker in fleet.all) <= 1
            await asyncio.sleep(0)
        await until(lambda: len(fleet.numbers()) == 3)
        assert len(fleet.all) == 6
        assert max(worker.number for worker in fleet.all) == 3
        assert pool.restarts == 0


@pytest.mark.parametrize("bad", [{"failure": ConfigError("server.yaml", "bad")}, {"serves": False}])
async def test_a_rolling_restart_whose_first_worker_isnt_ready_leaves_the_old_ones(
    fleet: Fleet, bad: dict[str, object]
) -> None:
    async with running(fleet) as pool:
        fleet.next = [bad]
        pool.roll()
        await until(lambda: len(fleet.all) == 4 and fleet.all[3].code is not None)
        assert not any(worker.stopped for worker in fleet.all[:3])
        assert pool.readiness().ready
        pool.roll()  # and the next one goes through
        await until(lambda: all(worker.stopped for worker in fleet.all[:3]))


async def test_a_worker_that_dies_while_its_successor_starts_is_replaced_once(fleet: Fleet) -> None:
    async with running(fleet, 2) as pool:
        fleet.next = [{"serves": False}]
        pool.roll()
        await until(lambda: len(fleet.all) == 3)
        fleet.all[0].die()
        fleet.all[2].serving_since = 0.0
        fleet.all[2].die()  # the successor as well
        await until(lambda: pool.readiness().ready and len(fleet.numbers()) == 2)
        assert {worker.number for worker in fleet.all} <= {0, 1, 2}


async def test_under_random_deaths_and_rolls_the_count_and_the_numbers_hold(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)  # noqa: S311 - a test's
    monkeypatch.setattr(Backoff, "pause", lambda _self, _served: chance.random() * 0.01)
    async with running(fleet) as pool:
        for _ in range(300):
            alive = [worker for worker in fleet.all if worker.code is None]
            if alive and chance.random() < 0.4:
                chance.choice(alive).die()
            if chance.random() < 0.2:
                pool.roll()
            await asyncio.sleep(chance.random() * 0.004)
        await until(lambda: pool.readiness().ready and len(fleet.numbers()) == 3)
        assert max(worker.number for worker in fleet.all) <= 3


async def test_a_rolling_restart_that_is_asked_for_during_another_follows_it(fleet: Fleet) -> None:
    """The code or settings may have changed since the first began."""
    async with running(fleet) as pool:
        pool.roll()
        await until(lambda: len(fleet.all) == 4)
        pool.roll()
        await until(lambda: len(fleet.all) == 9 and len(fleet.numbers()) == 3)
        assert all(worker.stopped for worker in fleet.all[:6])
        await asyncio.sleep(0.05)
        assert len(fleet.all) == 9


async def test_workers_that_are_told_to_go_have_the_drain_and_a_margin(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        fleet.next = [{}, {"serves": False}]
        pool.roll()  # which replaces the first, and gives up at the second
        await until(lambda: len(fleet.all) == 5 and fleet.all[4].code is not None)
        assert fleet.all[0].patience == 1.0 + module.MARGIN
        assert fleet.all[4].patience == module.MARGIN  # it has no calls
    assert {worker.patience for worker in fleet.all[1:4]} == {1.0 + module.MARGIN}


async def test_a_worker_that_drains_in_a_rolling_restart_doesnt_count_for_readiness(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        fleet.all[0].state = Readiness(("draining",))
        assert not pool.readiness().ready
        pool.roll()
        await until(lambda: fleet.all[0].stopped)
        assert pool.readiness().ready


async def test_a_reload_goes_to_every_worker(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        pool.reload()
        assert [worker.reloads for worker in fleet.all] == [1, 1, 1]


async def test_reasons_of_all_places_are_together_and_draining_comes_first(fleet: Fleet) -> None:
    async with running(fleet) as pool:
        fleet.all[0].state = Readiness(("disk",), ("stale",))
        fleet.all[2].state = Readiness(("redis",))
        assert pool.readiness() == Readiness(("disk", "redis"), ("stale",))
        pool.phase = "draining"
        assert pool.readiness().reasons == ("draining", "disk", "redis")


NO_PROCESS = [OSError(24, "Too many open files"), BlockingIOError(11, "Resource temporarily unavailable")]


@pytest.mark.parametrize("error", NO_PROCESS)
async def test_while_no_process_can_be_started_the_pauses_grow(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The worker that died had served for long; what fails since then are the starts."""
    served: list[float] = []

    async def no_process(_orders: WorkerOptions, _number: int) -> FakeWorker:
        raise error

    def pause(_self: Backoff, seconds: float) -> float:
        served.append(seconds)
        return 0.001

    monkeypatch.setattr(Backoff, "pause", pause)
    async with running(fleet) as pool:
        monkeypatch.setattr(pool, "_spawn_worker", no_process)
        fleet.all[0].die()
        await until(lambda: len(served) > 3)
        monkeypatch.setattr(pool, "_spawn_worker", fleet.spawn)
        await until(lambda: pool.readiness().ready)
        assert served[0] > 30
        assert set(served[1:]) == {0.0}
        assert pool.restarts == 1


@pytest.mark.parametrize("error", NO_PROCESS)
async def test_a_rolling_restart_without_a_process_to_be_had_leaves_the_old_ones(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries: list[int] = []

    async def no_process(_orders: WorkerOptions, number: int) -> FakeWorker:
        tries.append(number)
        raise error

    async with running(fleet) as pool:
        monkeypatch.setattr(pool, "_spawn_worker", no_process)
        pool.roll()
        await until(lambda: tries == [3])
        await asyncio.sleep(0.05)
        assert pool.readiness().ready
        assert fleet.numbers() == [0, 1, 2]


@pytest.mark.parametrize("error", NO_PROCESS)
async def test_a_start_without_a_process_to_be_had_says_so_and_leaves_none(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pool = Pool(ORDERS, 2, 1.0, fleet.spawn)  # type: ignore[arg-type]

    async def second_fails(orders: WorkerOptions, number: int) -> FakeWorker:
        if number:
            raise error
        return await fleet.spawn(orders, number)

    monkeypatch.setattr(pool, "_spawn_worker", second_fails)
    with pytest.raises(ConfigError, match=r"^workers: no process can be started: "):
        await pool.start()
    await pool.stop()
    assert fleet.numbers() == []
