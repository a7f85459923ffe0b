"""What is counted and logged of a finished call: bounded labels, and one line unless the audit trail has it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.core.refusal import Overload
from livekit_auth_server.core.trace import TraceParent
from livekit_auth_server.service.ports import FinishedCall
from livekit_auth_server.telemetry.call_metrics import CallerMetrics, Observer, Observers
from livekit_auth_server.telemetry.client_versions import MOST
from support.fakes import NOW, FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


TRACE = "0af7651916cd43dd8448eb211c80319c"
CALL = FinishedCall(
    method="VerifyToken",
    caller="spiffe://example.org/web",
    listed=True,
    seconds=0.003,
    audited=False,
    peer="ipv4:10.0.0.1:5",
    trace=TraceParent(TRACE, "b7ad6b7169203331", sampled=True),
)
REFUSED = replace(CALL, code="INVALID_ARGUMENT", reason="TOKEN_EXPIRED")


def a_call(**changes: Any) -> FinishedCall:
    return replace(CALL, **changes)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


async def test_a_call_is_counted_and_timed(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())
    for call in (CALL, CALL, REFUSED, a_call(method="GetCaller")):
        observer.finished(call)

    def count(**labels: str) -> float | None:
        return registry.get_sample_value("livekit_auth_calls_total", labels)

    assert count(method="VerifyToken", code="OK", reason="") == 2
    assert count(method="VerifyToken", code="INVALID_ARGUMENT", reason="TOKEN_EXPIRED") == 1
    assert registry.get_sample_value("livekit_auth_call_seconds_count", {"method": "VerifyToken"}) == 3
    assert registry.get_sample_value("livekit_auth_call_seconds_sum", {"method": "GetCaller"}) == 0.003
    assert registry.get_sample_value("livekit_auth_call_seconds_bucket", {"method": "GetCaller", "le": "0.005"}) == 1


async def test_calls_without_room_are_counted_by_their_cause(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())

    def counts() -> dict[str, float | None]:
        name = "livekit_auth_overloaded_total"
        return {cause: registry.get_sample_value(name, {"cause": cause}) for cause in Overload}

    assert counts() == dict.fromkeys(Overload, 0)
    for cause in ("caller_calls", "caller_calls", "request_bytes"):
        observer.finished(a_call(code="UNAVAILABLE", reason="OVERLOADED", overload=cause))
    observer.finished(a_call(code="UNAVAILABLE", reason="AUDIT_UNAVAILABLE"))
    assert counts() == dict.fromkeys(Overload, 0) | {"caller_calls": 2, "request_bytes": 1}


async def test_what_a_caller_chooses_is_no_label(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())
    for number in range(50):
        observer.finished(
            a_call(
                caller=f"spiffe://x/{number}",
                peer=str(number),
                message=str(number),
                trace=TraceParent(f"{number:032x}", "1" * 16, sampled=True),
            )
        )
    counted = [s for metric in registry.collect() for s in metric.samples if s.name == "livekit_auth_calls_total"]
    assert [(sample.labels, sample.value) for sample in counted] == [
        ({"method": "VerifyToken", "code": "OK", "reason": ""}, 50)
    ]


def series(registry: CollectorRegistry, name: str) -> list[tuple[dict[str, str], float]]:
    return [(s.labels, s.value) for metric in registry.collect() for s in metric.samples if s.name == name]


def test_ten_thousand_callers_make_no_series_of_their_own(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())
    observer.finished(CALL)
    before = sum(len(metric.samples) for metric in registry.collect())
    for number in range(10_000):
        observer.finished(a_call(caller=f"spiffe://x/{number}", user_agent=f"livekit-auth-python/1.0.{number}"))
    after = sum(len(metric.samples) for metric in registry.collect())
    assert after - before == MOST  # a count for each of the first versions, beside the one of "other"


def test_client_libraries_are_counted_by_version(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())
    for agent in ("livekit-auth-python/1.2.3 grpc-python/1.85.1", "livekit-auth-python/1.2.3", "curl/8", ""):
        observer.finished(a_call(user_agent=agent))
    counted = series(registry, "livekit_auth_client_calls_total")
    assert counted == [
        ({"client": "livekit-auth-python", "version": "1.2.3"}, 2),
        ({"client": "other", "version": ""}, 2),
    ]


async def test_a_caller_that_the_policy_does_not_list_names_no_version(
    registry: CollectorRegistry, lines: list[Any]
) -> None:
    Observer(registry, FakeClock()).finished(a_call(listed=False, user_agent="livekit-auth-python/6.6.6"))
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
        metrics.finished(a_call(caller=caller, listed=listed, code=code))
    counted = {(s["caller"], s["outcome"]): value for s, value in series(registry, "livekit_auth_caller_calls_total")}
    assert counted == {
        ("other", "ok"): 1,
        ("other", "refused"): 1,
        ("spiffe://x/a", "ok"): 2,
        ("spiffe://x/a", "refused"): 1,
        ("spiffe://x/b", "ok"): 1,
    }


def test_every_observer_is_told(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observers(Observer(registry, FakeClock()), CallerMetrics(registry, 1)).finished(CALL)
    assert [value for _, value in series(registry, "livekit_auth_calls_total")] == [1]
    assert sum(value for _, value in series(registry, "livekit_auth_caller_calls_total")) == 1


async def test_a_call_is_one_line(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observer(registry, FakeClock()).finished(
        a_call(code="PERMISSION_DENIED", reason="ROOM_NOT_PERMITTED", message="no entry")
    )
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
            "trace_id": TRACE,
            "detail": "no entry",
        }
    ]


@pytest.mark.parametrize(
    ("call", "logged"),
    [
        (a_call(audited=False), True),
        (a_call(audited=False, code="UNAUTHENTICATED", decision_id="d"), True),
        (a_call(audited=True), False),
        (a_call(audited=True, code="PERMISSION_DENIED", decision_id="d"), False),
        (a_call(audited=True, code="PERMISSION_DENIED"), True),
        (a_call(audited=True, code="INTERNAL"), True),
        (a_call(audited=True, code="CANCELLED"), True),
    ],
)
async def test_a_decision_in_the_audit_trail_gets_no_second_line(
    registry: CollectorRegistry,
    lines: list[Any],
    call: FinishedCall,
    logged: bool,  # noqa: FBT001
) -> None:
    Observer(registry, FakeClock()).finished(call)
    assert len(lines) == logged


async def test_a_fault_of_the_server_is_an_error(registry: CollectorRegistry, lines: list[Any]) -> None:
    Observer(registry, FakeClock()).finished(a_call(code="INTERNAL", reason="INTERNAL"))
    assert lines[0]["log_level"] == "error"


async def test_refusals_of_a_listed_caller_beyond_ten_a_second_are_counted_together(
    registry: CollectorRegistry, lines: list[Any]
) -> None:
    observer = Observer(registry, clock := FakeClock(NOW))
    for number in range(500):
        clock.advance(0.001)
        method = "AckWebhook" if number % 5 == 0 else "VerifyToken"
        observer.finished(replace(REFUSED, method=method))
    observer.finished(replace(REFUSED, caller="spiffe://example.org/other"))
    observer.finished(CALL)
    observer.close()
    alone = [line for line in lines if line["event"] == "call" and line["code"] == "INVALID_ARGUMENT"]
    assert len(alone) == 10 + 4 + 1
    assert [line["code"] for line in lines if line["event"] == "call"][-1] == "OK"
    [together] = [line for line in lines if line["event"] == "calls"]
    methods = together.pop("methods")
    assert together == {
        "event": "calls",
        "log_level": "info",
        "caller": "spiffe://example.org/web",
        "count": 486,
        "reasons": {"TOKEN_EXPIRED": 486},
        "from": NOW,
        "time": NOW,
    }
    assert sum(methods.values()) == 486
    labels = {"method": "AckWebhook", "code": "INVALID_ARGUMENT", "reason": "TOKEN_EXPIRED"}
    assert registry.get_sample_value("livekit_auth_calls_total", labels) == 100


async def test_callers_that_the_policy_does_not_list_share_ten_lines_a_second_even_when_they_are_answered(
    registry: CollectorRegistry, lines: list[Any]
) -> None:
    observer = Observer(registry, FakeClock())
    for number in range(300):
        code, reason = ("PERMISSION_DENIED", "CALLER_NOT_LISTED") if number % 2 else ("OK", "")
        who = f"spiffe://example.org/stranger/{number}"
        observer.finished(a_call(caller=who, listed=False, code=code, reason=reason))
    observer.close()
    assert len([line for line in lines if line["event"] == "call"]) == 10
    [together] = [line for line in lines if line["event"] == "calls"]
    assert together["count"] == 290
    assert together["callers"] == [f"spiffe://example.org/stranger/{number}" for number in range(10, 18)]


async def test_calls_without_an_identity_share_ten_lines_of_their_own(
    registry: CollectorRegistry, lines: list[Any]
) -> None:
    observer = Observer(registry, FakeClock())
    nobody = a_call(caller="", listed=False, code="UNAUTHENTICATED", reason="NO_CLIENT_CERTIFICATE")
    for number in range(300):
        observer.finished(replace(nobody, peer=f"ipv4:10.0.0.{number % 3}:{number}"))
    observer.finished(a_call(caller="spiffe://x/stranger", listed=False, code="PERMISSION_DENIED"))
    observer.close()
    assert len([line for line in lines if line["event"] == "call"]) == 10 + 1
    [together] = [line for line in lines if line["event"] == "calls"]
    assert (together["count"], together["reasons"]) == (290, {"NO_CLIENT_CERTIFICATE": 290})
    assert sorted(together["peers"]) == ["ipv4:10.0.0.0", "ipv4:10.0.0.1", "ipv4:10.0.0.2"]


async def test_faults_that_were_counted_together_are_an_error(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, FakeClock())
    for _ in range(20):
        observer.finished(a_call(code="INTERNAL", reason="INTERNAL"))
    observer.close()
    assert [line["log_level"] for line in lines] == ["error"] * 11


async def test_what_was_counted_is_logged_by_itself(registry: CollectorRegistry, lines: list[Any]) -> None:
    observer = Observer(registry, clock := FakeClock())
    for _ in range(20):
        observer.finished(REFUSED)
    clock.advance(1)
    for _ in range(1000):
        if lines[-1]["event"] == "calls":
            break
        await asyncio.sleep(0.01)
    assert lines[-1]["count"] == 10
    clock.advance(10)
    observer.finished(REFUSED)
    assert lines[-1]["event"] == "call"
    observer.close()
    assert lines[-1]["event"] == "call", "nothing is left to say"
