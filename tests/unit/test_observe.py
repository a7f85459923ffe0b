"""What is counted and logged of a finished call: bounded labels, and one line unless the audit trail has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.adapters.observe import Observer

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
