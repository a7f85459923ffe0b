"""Workers that hang, stop or end at a bad moment, and a supervisor that does: real processes."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.supervisor.worker_process import SILENCE
from support.deployment import environment
from support.fleet import WEB, Fleet
from support.moments import at_import
from support.probes import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
NOTICED = SILENCE + 20  # seconds, on a machine that has other things to do
STARTED = 120  # likewise, for a new worker


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Not started."""
    fleet = Fleet.create(tmp_path, "audit: {path: audit, required: true}\ndrain: 10")
    yield fleet
    if fleet.deployment.process is not None:
        fleet.deployment.stop()


def hung(fleet: Fleet) -> int:
    (line,) = [line for line in fleet.probes.metrics().splitlines() if line.startswith("livekit_auth_workers_hung_t")]
    return int(float(line.split()[-1]))


def replaced(fleet: Fleet, worker: psutil.Process) -> None:
    """Waits until it was seen to hang, and another serves in its place."""
    (gone,), _ = psutil.wait_procs([worker], timeout=NOTICED)
    assert gone == worker
    within(STARTED, fleet.probes.ready, "readiness")
    (line,) = fleet.events("worker hangs and is killed")
    assert (line["pid"], line["why"]) == (worker.pid, "no heartbeat")
    assert hung(fleet) == 1
    assert len(fleet.workers()) == 2
    for _ in range(20):  # on connections of their own, each at a worker that the kernel chooses
        assert fleet.deployment.caller(WEB).IssueToken(ASK, timeout=10).token


# Workers


def test_a_stopped_worker_is_killed_counted_and_replaced(fleet: Fleet) -> None:
    """Its socket gets its share of new connections until then."""
    worker = fleet.start().workers()[1]
    worker.suspend()
    replaced(fleet, worker)
    assert fleet.deployment.stop() == 0


def test_a_spinning_worker_is_killed_counted_and_replaced(fleet: Fleet, tmp_path: Path) -> None:
    code = at_import(tmp_path / "code", "grpc", "signal.signal(signal.SIGUSR1, spin)", command="worker", times=2)
    worker = fleet.start(code).workers()[0]
    worker.send_signal(signal.SIGUSR1)
    replaced(fleet, worker)


def test_worker_that_stops_during_startup_does_not_block_the_others(fleet: Fleet, tmp_path: Path) -> None:
    code = at_import(tmp_path / "code", "grpc", "os.kill(os.getpid(), signal.SIGSTOP)", command="worker")
    fleet.deployment.start(code)
    within(STARTED, fleet.probes.ready, "readiness")
    assert hung(fleet) == 1
    assert len(fleet.workers()) == 2


def test_a_worker_that_is_busy_for_long_isnt_taken_for_one_that_hangs(fleet: Fleet) -> None:
    """A large policy in block text, which takes the slow parser seconds for each thousand callers."""
    fleet.start()
    before = {worker.pid for worker in fleet.workers()}
    policy = fleet.deployment.directory / "policy.yaml"
    many = "".join(f"  - {{id: spiffe://example.org/many/{number}, allow: []}}\n" for number in range(4000))
    policy.write_text(f"{policy.read_text()}{many}  - id: >-\n      spiffe://example.org/last\n    allow: []\n")
    within(
        300, lambda: {line["worker"] for line in fleet.events("reloaded") if line["kind"] == "policy"} == {0, 1}, "it"
    )
    assert hung(fleet) == 0
    assert {worker.pid for worker in fleet.workers()} == before


def test_workers_survive_a_pause_of_the_supervisor(fleet: Fleet) -> None:
    fleet.start()
    before = {worker.pid for worker in fleet.workers()}
    fleet.supervisor.suspend()
    time.sleep(SILENCE + 3)  # which is the point
    fleet.supervisor.resume()
    within(10, fleet.probes.ready, "readiness")
    time.sleep(2)
    assert hung(fleet) == 0
    assert {worker.pid for worker in fleet.workers()} == before


def test_workers_that_all_end_at_the_start_end_the_supervisor_with_a_reason(fleet: Fleet, tmp_path: Path) -> None:
    code = at_import(tmp_path / "code", "grpc", "os.kill(os.getpid(), signal.SIGKILL)", command="worker", times=2)
    done = subprocess.run(
        fleet.deployment.command("serve"),
        capture_output=True,
        text=True,
        timeout=STARTED,
        check=False,
        env=environment(code),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "livekit-auth-server: workers: no worker served; exit code -9 (negative for a signal)"
    )
    assert "Traceback" not in done.stderr


# The supervisor


def gone(workers: list[psutil.Process]) -> bool:
    """Whether all end by themselves; ends those that don't."""
    _, living = psutil.wait_procs(workers, timeout=10)
    for worker in living:
        worker.kill()
    return not living


def test_a_stopped_worker_ends_with_its_supervisor(fleet: Fleet) -> None:
    """It would keep the port, and its audit file, for ever."""
    workers = fleet.start().workers()
    workers[0].suspend()
    fleet.supervisor.kill()
    assert gone(workers)


def test_workers_end_with_a_supervisor_that_ends_while_they_start(fleet: Fleet, tmp_path: Path) -> None:
    code = at_import(tmp_path / "code", "grpc", "time.sleep(120)", command="worker", times=2)
    with subprocess.Popen(
        fleet.deployment.command("serve"), stderr=subprocess.DEVNULL, env=environment(code)
    ) as supervisor:
        within(STARTED, lambda: not list((code / "tokens").iterdir()), "the start of both")
        workers = psutil.Process(supervisor.pid).children()
        assert len(workers) == 2
        supervisor.kill()
        assert gone(workers)
