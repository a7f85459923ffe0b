"""What is counted and logged of a finished call: bounded labels, and one line unless the audit trail has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.adapters.client_versions import MOST
from livekit_auth_server.adapters.observe import CallerMetrics, Observer, Observers

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Call:
    method: str = "VerifyToken"
    caller: str = "spiffe://example.org/web"
    code: str = "OK"
    reason: str = ""
    seconds: float = 0.003
    decision_id: str = ""
    audited: bool = False
    peer: str = "ipv4:10.0.0.1:5"
    trace_id: str = "t"
    message: str = ""
    listed: bool = True
    user_agent: str = ""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


def test_a_call_is_counted_and_timed(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry)
    for call in (Call(), Call(), Call(code="UNAUTHENTICATED", reason="TOKEN_EXPIRED"), Call(method="GetCaller")):
        observer.finished(call)

    def count(**labels: str) -> float | None:
        return registry.get_sample_value("livekit_auth_calls_total", labels)

    assert count(method="VerifyToken", code="OK", reason="") == 2
    assert count(method="VerifyToken", code="UNAUTHENTICATED", reason="TOKEN_EXPIRED") == 1
    assert registry.get_sample_value("livekit_auth_call_seconds_count", {"method": "VerifyToken"}) == 3
    assert registry.get_sample_value("livekit_auth_call_seconds_sum", {"method": "GetCaller"}) == 0.003
    assert registry.get_sample_value("livekit_auth_call_seconds_bucket", {"method": "GetCaller", "le": "0.005"}) == 1


def test_what_a_caller_chooses_is_no_label(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry)
    for number in range(50):
        observer.finished(
            Call(caller=f"spiffe://x/{number}", peer=str(number), message=str(number), trace_id=str(number))
        )
    counted = [s for metric in registry.collect() for s in metric.samples if s.name == "livekit_auth_calls_total"]
    assert [(sample.labels, sample.value) for sample in counted] == [
        ({"method": "VerifyToken", "code": "OK", "reason": ""}, 50)
    ]


def series(registry: CollectorRegistry, name: str) -> list[tuple[dict[str, str], float]]:
    return [(s.labels, s.value) for metric in registry.collect() for s in metric.samples if s.name == name]


def test_ten_thousand_callers_make_no_series_of_their_own(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry)
    observer.finished(Call())
    before = sum(len(metric.samples) for metric in registry.collect())
    for number in range(10_000):
        observer.finished(Call(caller=f"spiffe://x/{number}", user_agent=f"livekit-auth-python/1.0.{number}"))
    after = sum(len(metric.samples) for metric in registry.collect())
    assert after - before == MOST  # a count for each of the first versions, beside the one of "other"


def test_client_libraries_are_counted_by_version(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry)
    for agent in ("livekit-auth-python/1.2.3 grpc-python/1.85.1", "livekit-auth-python/1.2.3", "curl/8", ""):
        observer.finished(Call(user_agent=agent))
    counted = series(registry, "livekit_auth_client_calls_total")
    assert counted == [
        ({"client": "livekit-auth-python", "version": "1.2.3"}, 2),
        ({"client": "other", "version": ""}, 2),
    ]


def test_a_caller_that_the_policy_does_not_list_names_no_version(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observer(registry).finished(Call(listed=False, user_agent="livekit-auth-python/6.6.6"))
    assert series(registry, "livekit_auth_client_calls_total") == []


def test_callers_are_counted_by_name_as_far_as_the_setting_says(registry: CollectorRegistry) -> None:
    metrics = CallerMetrics(registry, 2)
    for caller, listed, code in [
        ("spiffe://x/stranger", False, "PERMISSION_DENIED"),
        ("spiffe://x/a", True, "OK"),
        ("spiffe://x/a", True, "PERMISSION_DENIED"),
        ("spiffe://x/b", True, "OK"),
        ("spiffe://x/c", True, "OK"),
        ("spiffe://x/a", True, "OK"),
    ]:
        metrics.finished(Call(caller=caller, listed=listed, code=code))
    counted = {(s["caller"], s["outcome"]): value for s, value in series(registry, "livekit_auth_caller_calls_total")}
    assert counted == {
        ("other", "ok"): 1,
        ("other", "refused"): 1,
        ("spiffe://x/a", "ok"): 2,
        ("spiffe://x/a", "refused"): 1,
        ("spiffe://x/b", "ok"): 1,
    }


def test_every_observer_is_told(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observers(Observer(registry), CallerMetrics(registry, 1)).finished(Call())
    assert [value for _, value in series(registry, "livekit_auth_calls_total")] == [1]
    assert sum(value for _, value in series(registry, "livekit_auth_caller_calls_total")) == 1


def test_a_call_is_one_line(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observer(registry).finished(Call(code="PERMISSION_DENIED", reason="ROOM_NOT_PERMITTED", message="no entry"))
    assert lines == [
        {
            "event": "call",
            "log_level": "info",
            "method": "VerifyToken",
            "code": "PERMISSION_DENIED",
            "reason": "ROOM_NOT_PERMITTED",
            "caller": "spiffe://example.org/web",
            "peer": "ipv4:10.0.0.1:5",
            "milliseconds": 3.0,
            "trace_id": "t",
            "detail": "no entry",
        }
    ]


@pytest.mark.parametrize(
    ("call", "logged"),
    [
        (Call(audited=False), True),
        (Call(audited=False, code="UNAUTHENTICATED", decision_id="d"), True),
        (Call(audited=True), False),
        (Call(audited=True, code="PERMISSION_DENIED", decision_id="d"), False),
        (Call(audited=True, code="PERMISSION_DENIED"), True),
        (Call(audited=True, code="INTERNAL"), True),
        (Call(audited=True, code="CANCELLED"), True),
    ],
)
def test_a_decision_in_the_audit_trail_gets_no_second_line(
    registry: CollectorRegistry,
    lines: list[Any],
    call: Call,
    logged: bool,  # noqa: FBT001
) -> None:
    Observer(registry).finished(call)
    assert len(lines) == logged


def test_a_fault_of_the_server_is_an_error(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observer(registry).finished(Call(code="INTERNAL", reason="INTERNAL"))
    assert lines[0]["log_level"] == "error"
