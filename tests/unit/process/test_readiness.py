"""What /readyz is made of."""

from __future__ import annotations

from livekit_auth_server.process.readiness import Condition, Readiness


def test_a_process_is_ready_only_while_it_serves() -> None:
    condition = Condition()
    assert condition.now() == Readiness(("starting",))
    condition.phase = "serving"
    assert condition.now() == Readiness()
    assert condition.now().ready
    condition.phase = "draining"
    assert condition.now() == Readiness(("draining",))
    assert not condition.now().ready


def test_every_problem_of_every_part_is_a_reason() -> None:
    condition = Condition("serving", [lambda: ["disk"], list, lambda: ["redis", "more"]])
    assert condition.now().reasons == ("disk", "redis", "more")


def test_a_warning_shows_and_stops_nothing() -> None:
    condition = Condition("serving", warnings=[lambda: ["policy: line 3"]])
    assert condition.now() == Readiness((), ("policy: line 3",))
    assert condition.now().ready


def test_readyz_answers_with_reasons_and_warnings() -> None:
    readiness = Readiness(("a",), ("b", "c"))
    assert readiness.to_dict() == {"ready": False, "reasons": ("a",), "warnings": ("b", "c")}
