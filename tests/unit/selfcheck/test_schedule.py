"""When a self-check runs, of which state, and what ends it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.selfcheck.report import Difference, Kind, NotRun, Report
from livekit_auth_server.selfcheck.schedule import Schedule
from livekit_auth_server.selfcheck.task import Task
from livekit_auth_server.selfcheck.verdict import Verdict
from livekit_auth_server.service.state import InForce
from support.handlers import state_of
from support.policies import EVERYTHING, JOIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIFFERENT = Report(6, 1, (Difference(Kind.TOKEN, 0, "exp"),), {Kind.TOKEN: 1})


@dataclass
class Child:
    """Stands in for the process: answers with `result` once it may."""

    result: Report | NotRun | Exception = field(default_factory=lambda: Report(6, 1))
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    roles: list[list[str]] = field(default_factory=list)
    cancelled: int = 0
    at_once: int = 0
    most: int = 0

    async def run(self, task: bytes) -> Report | NotRun:
        self.roles.append([name for name, _ in Task.decode(task).roles])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


def in_force(*roles: str) -> InForce:
    return InForce(state_of(EVERYTHING, roles=dict.fromkeys(roles, JOIN)))


@dataclass
class Running:
    child: Child
    state: InForce
    verdict: Verdict
    schedule: Schedule
    task: asyncio.Task[None]


@pytest.fixture
async def running(tmp_path: Path):
    child, state, verdict = Child(), in_force("old"), Verdict("enforce")
    schedule = Schedule(state, verdict, tmp_path, child.run, retry=0.05)
    task = asyncio.create_task(schedule.run())
    yield Running(child, state, verdict, schedule, task)
    task.cancel()
    await asyncio.wait({task})
    assert child.at_once == 0


async def test_nothing_is_checked_unless_it_is_requested(running: Running) -> None:
    await asyncio.sleep(0.1)
    assert running.child.roles == []
    running.child.may_end.set()
    for count in (1, 2):
        running.schedule.request()
        await until(partial(lambda count: len(running.child.roles) == count and not running.child.at_once, count))
    assert running.verdict.status == "passed"


async def test_a_request_during_a_check_ends_it_and_checks_what_is_in_force_now(running: Running) -> None:
    running.schedule.request()
    await until(lambda: running.child.at_once)
    policy = running.state.state.policy
    running.state.replace_policy(replace(policy, roles={"new": JOIN}))
    running.schedule.request()
    await until(lambda: len(running.child.roles) == 2)
    assert (running.child.roles, running.child.cancelled) == ([["old"], ["new"]], 1)
    assert running.verdict.status == "pending"
    running.child.may_end.set()
    await until(lambda: running.verdict.status == "passed")


async def test_a_check_that_could_not_run_is_tried_again(running: Running) -> None:
    running.child.may_end.set()
    running.child.result = NotRun.CRASHED
    running.schedule.request()
    await until(lambda: len(running.child.roles) == 3)
    running.child.result = Report(6, 1)
    await until(lambda: running.verdict.status == "passed")


async def test_a_fault_of_the_check_itself_ends_no_schedule(running: Running) -> None:
    running.child.may_end.set()
    running.child.result = RuntimeError("a bug")
    running.schedule.request()
    await until(lambda: running.verdict.status == "not_run")
    running.child.result = Report(6, 1)
    await until(lambda: running.verdict.status == "passed")


async def test_processes_of_one_folder_check_one_after_the_other(tmp_path: Path) -> None:
    child = Child()
    checks = [asyncio.create_task(Schedule(in_force(), Verdict("warn"), tmp_path, child.run).check()) for _ in range(3)]
    await until(lambda: child.at_once)
    child.may_end.set()
    await asyncio.gather(*checks)
    assert (len(child.roles), child.most) == (3, 1)


async def test_a_lock_that_somebody_holds_skips_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livekit_auth_server.selfcheck.schedule._PATIENCE", 0.2)
    child = Child()
    checks = [asyncio.create_task(Schedule(in_force(), Verdict("warn"), tmp_path, child.run).check()) for _ in range(2)]
    await until(lambda: child.at_once == 2)
    child.may_end.set()
    await asyncio.gather(*checks)


async def test_a_folder_that_cannot_be_opened_skips_no_check(tmp_path: Path) -> None:
    child = Child()
    child.may_end.set()
    await Schedule(in_force(), Verdict("warn"), tmp_path / "gone", child.run).check()
    assert len(child.roles) == 1


@pytest.mark.parametrize(
    ("result", "level", "event"),
    [
        (Report(6, 1), "info", "selfcheck passed"),
        (DIFFERENT, "error", "selfcheck found differences"),
        (NotRun.TIMEOUT, "warning", "selfcheck didn't run"),
    ],
)
async def test_each_outcome_is_one_line(tmp_path: Path, result: Report | NotRun, level: str, event: str) -> None:
    child = Child(result)
    child.may_end.set()
    with capture_logs() as lines:
        await Schedule(in_force("guest"), Verdict("warn"), tmp_path, child.run).check()
    assert [(line["log_level"], line["event"]) for line in lines] == [(level, event)]
    if result is DIFFERENT:
        assert lines[0]["found"] == '1 difference from livekit-api: token of role "guest": exp'
