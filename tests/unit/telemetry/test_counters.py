"""Counters and histograms of the project's own against those of Prometheus' client: the same page, to the letter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from livekit_auth_server.telemetry.counters import Counts, TimesBy

BOUNDS = (0.0002, 0.005, 0.1, 1.0)
SECONDS = st.sampled_from(BOUNDS) | st.floats(0, 10)
TEXT = st.text(max_size=20).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


def page(registry: CollectorRegistry) -> list[str]:
    """The page without the times at which the client library first saw a series."""
    return [line for line in generate_latest(registry).decode().split("\n") if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from(["A", "B"]), SECONDS)))
def test_a_histogram_by_label_is_the_librarys(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = TimesBy("call_seconds", "Time.", BOUNDS, ours, "method")
    library = Histogram("call_seconds", "Time.", ("method",), buckets=BOUNDS, registry=theirs)
    for method, seconds in observed:
        mine.of(method).add(seconds)
        library.labels(method).observe(seconds)
    assert page(ours) == page(theirs)


@given(st.lists(SECONDS))
def test_a_histogram_without_a_label_is_the_librarys(observed: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = TimesBy("wait_seconds", "Time.", BOUNDS, ours).of()
    library = Histogram("wait_seconds", "Time.", buckets=BOUNDS, registry=theirs)
    for seconds in observed:
        mine.add(seconds)
        library.observe(seconds)
    assert page(ours) == page(theirs)


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_a_counter_is_the_librarys_whatever_its_labels_hold(counted: list[tuple[str, str]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counts("calls", "Calls.", ("a", "b"), ours)
    library = Counter("calls", "Calls.", ("a", "b"), registry=theirs)
    for labels in counted:
        mine.add(labels)
        library.labels(*labels).inc()
    assert page(ours) == page(theirs)


def test_a_series_can_begin_at_zero() -> None:
    registry = CollectorRegistry()
    Counts("calls", "Calls.", ("a",), registry).add(("x",), 0)
    assert registry.get_sample_value("calls_total", {"a": "x"}) == 0
