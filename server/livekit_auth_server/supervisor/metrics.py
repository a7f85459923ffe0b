"""The metrics of all workers on one page, with the label `worker`, and the supervisor's own.

Each worker keeps its own registry: prometheus_client's mode for several processes doesn't support gauges that call a
function. The label's values are the workers' numbers and "supervisor": a bounded set.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from livekit_auth_server.telemetry.registry import new_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from livekit_auth_server.supervisor.pool import Pool


class Merged:
    """A collector of several pages, by the value of the label `worker`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """The families of all texts, each once."""
        families: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                known.samples += [
                    sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples
                ]
        yield from families.values()


class _Own:
    """What the supervisor knows of its workers."""

    def __init__(self, pool: Pool, count: int) -> None:
        self._pool, self._count = pool, count

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("livekit_auth_workers", "Workers that should run.", value=self._count)
        serving = sum(worker.serving_since is not None for worker in self._pool.live)
        yield GaugeMetricFamily("livekit_auth_workers_live", "Workers that serve or drain.", value=serving)
        yield CounterMetricFamily(
            "livekit_auth_worker_restarts", "Workers that died and were replaced.", value=self._pool.restarts
        )
        yield CounterMetricFamily(
            "livekit_auth_workers_hung", "Workers that hung and were killed.", value=self._pool.hung
        )


class PoolMetrics:
    """Asks all workers at once. Scrapes that come meanwhile share the answer."""

    def __init__(self, pool: Pool, count: int, dropped: Callable[[], float]) -> None:
        self._pool = pool
        self._registry = new_registry(dropped)
        self._registry.register(_Own(pool, count))
        self._asking: asyncio.Task[Merged] | None = None

    async def collect(self) -> Merged:
        """The page of this moment. A worker that doesn't answer in time is left out."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, _: asyncio.Task[Merged]) -> None:
        self._asking = None

    async def _ask(self) -> Merged:
        workers = self._pool.live
        texts = await asyncio.gather(*(worker.metrics() for worker in workers))
        found = {str(worker.number): text for worker, text in zip(workers, texts, strict=True) if text is not None}
        return Merged({"supervisor": generate_latest(self._registry).decode(), **found})
