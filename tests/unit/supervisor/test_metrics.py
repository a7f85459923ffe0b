"""The metrics of several workers on one page."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from livekit_auth_server.supervisor.metrics import Merged, PoolMetrics


def registry(calls: int) -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("calls", "Finished calls.", ("code",), registry=found).labels('O"K\n\\').inc(calls)
    Gauge("computed", "A gauge with a function.", registry=found).set_function(lambda: calls * 2)
    Histogram("seconds", "Time.", buckets=(1, 2), registry=found).observe(1.5)
    return found


def text(calls: int) -> str:
    return generate_latest(registry(calls)).decode()


def samples(page: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["worker"] + sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_every_sample_of_every_worker_is_there_under_its_number() -> None:
    page = generate_latest(Merged({"0": text(3), "1": text(4)})).decode()
    found = samples(page)
    assert (found["calls_total", "0"], found["calls_total", "1"]) == (3, 4)
    assert (found["computed", "0"], found["computed", "1"]) == (6, 8)
    assert (found["seconds_bucket", "01.0"], found["seconds_bucket", "12.0"]) == (0, 1)
    assert found["seconds_sum", "1"] == 1.5


def test_a_family_has_one_head_and_its_samples_follow_it() -> None:
    page = generate_latest(Merged({"0": text(3), "1": text(4)})).decode()
    assert page.count("# TYPE calls_total counter\n") == 1
    assert page.count("# TYPE seconds histogram\n") == 1
    families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_labels_keep_their_text_and_gain_only_the_number() -> None:
    (family,) = [
        one
        for one in text_string_to_metric_families(generate_latest(Merged({"7": text(1)})).decode())
        if one.name == "calls"
    ]
    assert family.samples[0].labels == {"code": 'O"K\n\\', "worker": "7"}


def test_values_that_are_no_numbers_pass() -> None:
    odd = CollectorRegistry()
    Gauge("odd", "", registry=odd).set(math.inf)
    page = generate_latest(Merged({"0": generate_latest(odd).decode()})).decode()
    assert 'odd{worker="0"} +Inf' in page


class FakeWorker:
    def __init__(self, number: int, answer: str | None) -> None:
        self.number, self.answer, self.asked = number, answer, 0
        self.serving_since = 1.0

    async def metrics(self) -> str | None:
        self.asked += 1
        await asyncio.sleep(0.01)
        return self.answer


class FakePool:
    restarts, hung = 5, 2

    def __init__(self, *workers: FakeWorker) -> None:
        self.live = workers


async def test_a_worker_without_an_answer_is_left_out_and_the_supervisor_counts() -> None:
    pool: Any = FakePool(FakeWorker(0, text(1)), FakeWorker(1, None))
    page = generate_latest(await PoolMetrics(pool, 2, lambda: 9).collect()).decode()
    assert 'computed{worker="0"} 2.0' in page
    assert 'worker="1"' not in page
    assert 'livekit_auth_workers{worker="supervisor"} 2.0' in page
    assert 'livekit_auth_worker_restarts_total{worker="supervisor"} 5.0' in page
    assert 'livekit_auth_workers_hung_total{worker="supervisor"} 2.0' in page
    assert 'livekit_auth_log_lines_dropped{worker="supervisor"} 9.0' in page


async def test_scrapes_at_the_same_time_ask_the_workers_once() -> None:
    worker = FakeWorker(0, text(1))
    pool: Any = FakePool(worker)
    metrics = PoolMetrics(pool, 1, lambda: 0)
    pages = await asyncio.gather(*(metrics.collect() for _ in range(50)))
    assert worker.asked == 1
    assert len({id(page) for page in pages}) == 1
    await metrics.collect()
    assert worker.asked == 2
