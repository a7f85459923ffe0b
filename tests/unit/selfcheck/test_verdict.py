"""What a result means: for issuing, for /readyz and for the metrics."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.selfcheck.metrics import SelfcheckMetrics
from livekit_auth_server.selfcheck.report import Difference, Kind, NotRun, Report
from livekit_auth_server.selfcheck.task import Task
from livekit_auth_server.selfcheck.verdict import REASONS, Verdict, described
from support.handlers import KEY, keys_of
from support.policies import JOIN, policy_of

TASK = Task.of(policy_of(roles={"guest": JOIN})[0], keys_of(KEY))
PASSED = Report(6, 1)
DIFFERENT = Report(
    6,
    1,
    (
        Difference(Kind.TOKEN, 0, "exp"),
        Difference(Kind.VERIFICATION, 0, "RuntimeError raised"),
        Difference(Kind.WEBHOOK, 0, "room.name"),
        Difference(Kind.TOKEN, 99, "exp"),
    ),
    {Kind.TOKEN: 8, Kind.VERIFICATION: 1, Kind.WEBHOOK: 1},
)
SHOWN = (
    'selfcheck: 10 differences from livekit-api: token of role "guest": exp; token verified with key 1 of project '
    '"default": RuntimeError raised; webhook signed with key 1 of project "default": room.name; 7 more'
)


def refused(verdict: Verdict) -> bool:
    try:
        verdict.gate()
    except Refusal as refusal:
        return refusal.reason is Reason.SELFCHECK_FAILED
    return False


def page(verdict: Verdict) -> dict[str, float]:
    registry = CollectorRegistry()
    SelfcheckMetrics(registry, verdict)
    lines = [line.split() for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name.removeprefix("livekit_auth_selfcheck_"): float(value) for name, value in lines}


def status(verdict: Verdict) -> set[str]:
    return {name for name, value in page(verdict).items() if name.startswith("status") and value}


def test_before_the_first_result_everything_is_as_without_a_check() -> None:
    verdict = Verdict("enforce")
    assert (verdict.problems(), verdict.warnings(), refused(verdict)) == ([], [], False)
    assert status(verdict) == {'status{status="pending"}'}


def test_a_difference_stops_issuing_where_it_is_enforced() -> None:
    verdict = Verdict("enforce")
    verdict.record(DIFFERENT, TASK)
    assert (verdict.problems(), verdict.warnings(), refused(verdict)) == ([SHOWN], [], True)
    assert status(verdict) == {'status{status="different"}'}
    assert page(verdict)['differences{kind="token"}'] == 8
    verdict.record(PASSED, TASK)
    assert (verdict.problems(), verdict.warnings(), refused(verdict)) == ([], [], False)
    assert page(verdict)['differences{kind="token"}'] == 0


def test_a_difference_is_a_warning_otherwise() -> None:
    verdict = Verdict("warn")
    verdict.record(DIFFERENT, TASK)
    assert (verdict.problems(), verdict.warnings(), refused(verdict)) == ([], [SHOWN], False)


@pytest.mark.parametrize("why", NotRun)
def test_a_check_that_could_not_run_stops_nothing(why: NotRun) -> None:
    verdict = Verdict("enforce")
    verdict.record(why, TASK)
    assert (verdict.problems(), refused(verdict)) == ([], False)
    assert verdict.warnings() == [f"selfcheck didn't run: {REASONS[why]}"]
    assert status(verdict) == {'status{status="not_run"}'}


def test_a_check_that_could_not_run_lifts_no_difference() -> None:
    verdict = Verdict("enforce")
    verdict.record(DIFFERENT, TASK)
    verdict.record(NotRun.CRASHED, TASK)
    assert refused(verdict)
    assert verdict.problems() == [SHOWN]
    assert len(verdict.warnings()) == 1
    verdict.record(PASSED, TASK)
    assert not refused(verdict)
    assert verdict.warnings() == []


def test_a_sample_that_a_child_makes_up_is_named_so() -> None:
    assert described(DIFFERENT, TASK)[3] == "token of something unknown: exp"
