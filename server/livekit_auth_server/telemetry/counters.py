"""Counters and histograms of what happens in every call, without locks. Call them from the event loop only.

The metrics of prometheus_client take locks and check their arguments, which costs a call 3 to 5 % of its CPU time
(docs/adr/0030). The pages are equal (tests/unit/telemetry/test_counters.py). A scrape on another thread reads copies,
which may be one call apart.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric


class Counts(Collector):
    """A counter with labels; `name` is without "_total". Keep label values few: nothing here bounds them."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def add(self, labels: tuple[str, ...], count: int = 1) -> None:
        """Counts for these label values; 0 makes the series."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        """The counter as it is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in self._counts.copy().items():
            family.add_metric(labels, count)
        yield family


class Times:
    """One series of a histogram: durations by its bounds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1  # a bound belongs to the bucket that it ends
        self._sum += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Each bound with the number of durations up to it, and the sum of all."""
        counts, total, reached = self._counts.copy(), self._sum, 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
            reached += count
            found.append((floatToGoString(bound), reached))  # type: ignore[no-untyped-call]
        return found, total


class TimesBy(Collector):
    """A histogram with one label, or without one where `label` is empty. `bounds` are in seconds, ascending."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry, label: str = ""
    ) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._labels = (label,) if label else ()
        self._times: dict[tuple[str, ...], Times] = {}
        registry.register(self)

    def of(self, *value: str) -> Times:
        """The series of this label value, or the only one."""
        if value not in self._times:
            self._times[value] = Times(self._bounds)
        return self._times[value]

    def collect(self) -> Iterator[Metric]:
        """The histogram as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for value, times in self._times.copy().items():
            buckets, total = times.buckets()
            family.add_metric(value, buckets, total)
        yield family
