"""Several workers under a supervisor: real processes, killed, stopped, replaced."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil
import pytest

from livekit_auth import AuthError
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import POLICY, SECRETS
from support.fleet import WEB, Fleet
from support.probes import within
from support.refusals import code_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
TRUTH = 2.0  # seconds within which readiness tells the truth
SLACK = 1.0  # for a machine that has other things to do


@dataclass
class Load:
    """Calls of the real client, on connections that are renewed often, while it is entered."""

    fleet: Fleet
    connections: int = 10
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        within(10, lambda: self.answered > 50, "load")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._one() for _ in range(self.connections)))

    async def _one(self) -> None:
        while not self._over.is_set():
            async with self.fleet.client() as client:
                for _ in range(20):
                    try:
                        await client.issue_token(room="consult-1", identity="user-1", role="guest")
                        self.answered += 1
                    except AuthError as error:
                        self.failed.append(repr(error))
                    await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests that leave it as it was."""
    fleet = Fleet.create(tmp_path_factory.mktemp("fleet")).start()
    yield fleet
    assert fleet.deployment.stop() == 0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet.create(tmp_path, "audit: {path: audit, required: true}\ndrain: 10").start()
    yield fleet
    fleet.deployment.stop()


def audit_verdict(fleet: Fleet) -> dict[str, Any]:
    heads = [option for line in fleet.events("audit head") for option in ("--head", line["head"])]
    command = [sys.executable, "-m", "livekit_auth_server.cli", "audit", "verify", "--json"]
    done = subprocess.run(
        [*command, *heads, fleet.deployment.directory / "audit"], capture_output=True, check=False, timeout=60
    )
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


# What they share


def test_connections_are_spread_over_the_workers_and_the_metrics_are_all_of_theirs(shared: Fleet) -> None:
    def spread() -> bool:
        assert shared.deployment.caller(WEB).IssueToken(ASK).token
        return shared.counted() == {"0", "1"}

    within(20, spread, "a call to either worker")
    page = shared.probes.metrics()
    for worker in ("0", "1", "supervisor"):  # a gauge with a function, which a shared file would lose
        assert f'livekit_auth_log_lines_dropped{{worker="{worker}"}} 0.0' in page
    assert 'livekit_auth_workers_live{worker="supervisor"} 2.0' in page


def test_the_supervisor_has_no_grpc_in_it(shared: Fleet) -> None:
    """Its threads and a process that starts others don't go together."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (shared.supervisor.pid, shared.workers()[0].pid)]
    assert ["cygrpc" in text for text in maps] == [False, True]


def test_every_line_of_a_worker_carries_its_number(shared: Fleet) -> None:
    shared.deployment.caller(WEB).IssueToken(ASK)
    assert {line["worker"] for line in shared.events("serving")} == {0, 1}
    assert {line["worker"] for line in shared.events("audit")} <= {0, 1}


def test_without_redis_the_bound_of_limits_is_said_at_start(shared: Fleet) -> None:
    lines = map(json.loads, shared.deployment.log.splitlines())
    (warning,) = [line for line in lines if "once per worker" in line["event"]]
    assert warning["level"] == "warning"
    assert warning["workers"] == 2


def test_the_probes_answer(shared: Fleet) -> None:
    assert shared.probes.get("/livez") == (200, "ok\n")
    assert shared.probes.state() == {"ready": True, "reasons": [], "warnings": []}
    assert shared.probes.get("/")[0] == 404


def test_a_second_server_on_the_port_is_refused_although_the_workers_share_it(shared: Fleet, tmp_path: Path) -> None:
    other = Fleet.create(tmp_path)
    path = tmp_path / "server.yaml"
    path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{shared.deployment.port}"))
    assert refused_start(other) == f"listen: can't listen on 127.0.0.1:{shared.deployment.port}: Address already in use"


# Reloading


def test_sighup_reloads_every_worker(fleet: Fleet) -> None:
    fleet.supervisor.send_signal(signal.SIGHUP)
    within(5, lambda: {line["worker"] for line in fleet.events("reload requested")} == {0, 1})
    within(5, lambda: {line["worker"] for line in fleet.events("reloaded") if line["kind"] == "policy"} == {0, 1})


def test_a_file_that_cant_be_used_is_a_warning_and_the_server_stays_ready(fleet: Fleet) -> None:
    policy = fleet.deployment.directory / "policy.yaml"
    policy.write_text("version: 2\n")
    within(TRUTH + SLACK, lambda: len(fleet.probes.state()["warnings"]) == 2, "the warning")
    state = fleet.probes.state()
    assert state["ready"]
    assert [warning[:16] for warning in state["warnings"]] == ["worker 0: policy", "worker 1: policy"]
    policy.write_text(POLICY)
    within(TRUTH + SLACK, lambda: not fleet.probes.state()["warnings"], "the end of the warning")


def test_the_reasons_of_a_bad_key_file_show_no_secret(fleet: Fleet) -> None:
    fleet.deployment.private("alpha.yaml", f"keys: [{SECRETS['APIalpha']}: {{]\n")
    within(TRUTH + SLACK, lambda: len(fleet.probes.state()["warnings"]) == 2, "the warning")
    assert "alpha.yaml" in str(fleet.probes.state())
    for text in (fleet.probes.get("/readyz")[1], fleet.probes.metrics(), fleet.deployment.log):
        assert "MARKER" not in text


# Dying


def test_a_worker_that_is_killed_under_load_is_replaced_and_no_call_fails(fleet: Fleet) -> None:
    victim = fleet.workers()[0]
    with Load(fleet) as load:
        victim.kill()
        within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
        assert any("ended" in reason or "starting" in reason for reason in fleet.probes.state()["reasons"])
        before = load.answered
        within(5, lambda: load.answered > before + 50, "answers of the other worker")
        within(30, fleet.probes.ready, "readiness")
        before = load.answered
        within(5, lambda: load.answered > before + 50)
    assert load.failed == []
    assert len(fleet.workers()) == 2
    (death,) = fleet.events("worker died")
    assert (death["pid"], death["code"]) == (victim.pid, -9)
    assert 'livekit_auth_worker_restarts_total{worker="supervisor"} 1.0' in fleet.probes.metrics()
    assert fleet.deployment.stop() == 0
    assert sorted(path.name for path in (fleet.deployment.directory / "audit").iterdir()) == [
        "audit.0.jsonl",
        "audit.1.jsonl",
    ]  # the successor went on with the file of its number
    assert audit_verdict(fleet)["fine"]


def test_workers_go_when_the_supervisor_is_killed_and_another_can_start_at_once(fleet: Fleet) -> None:
    workers, port = fleet.workers(), fleet.deployment.port
    fleet.supervisor.kill()
    fleet.deployment.started.wait(10)
    path = fleet.deployment.directory / "server.yaml"
    path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    fleet.start()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert fleet.deployment.caller(WEB).IssueToken(ASK).token


def test_a_worker_that_hangs_is_not_ready(fleet: Fleet) -> None:
    worker = fleet.workers()[1]
    worker.suspend()
    try:
        within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
        assert "doesn't answer" in fleet.probes.state()["reasons"][0]
        began = time.monotonic()
        assert 'process_resident_memory_bytes{worker="supervisor"}' in fleet.probes.metrics()
        assert time.monotonic() - began < 1.5 + SLACK  # the others' metrics come without it
    finally:
        worker.resume()
    within(TRUTH + SLACK, fleet.probes.ready, "readiness")


# Starting


def refused_start(fleet: Fleet, *options: str) -> str:
    """Its one message."""
    command = [sys.executable, "-m", "livekit_auth_server.cli", "serve", "--config"]
    done = subprocess.run(
        [*command, fleet.deployment.directory / "server.yaml", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line.removeprefix("livekit-auth-server: ")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("policy.yaml", "roles: [guest]", "roles: [gust]", 'there is no role "gust"'),
        ("server.yaml", "policy: policy.yaml", "policy: nowhere.yaml", "nowhere.yaml: there is no such file"),
        ("server.yaml", "drain: 10", "audit: {path: server.pem}", "the audit trail can't be kept here"),
        ("server.yaml", "workers: 2", "workers: 0", "workers: should be at least 1"),
        ("server.yaml", "workers: 2", "workers: 65", "workers: should be at most 64"),
    ],
)
def test_a_bad_setting_ends_all_with_one_message(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    fleet = Fleet.create(tmp_path, "drain: 10")
    path = tmp_path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert message in refused_start(fleet)


def test_a_probe_address_that_is_taken_ends_all_with_one_message(shared: Fleet, tmp_path: Path) -> None:
    other = Fleet.create(tmp_path)
    path = tmp_path / "server.yaml"
    path.write_text(path.read_text().replace(f"127.0.0.1:{other.probes.port}", f"127.0.0.1:{shared.probes.port}"))
    assert refused_start(other).startswith(f"metrics: can't listen on 127.0.0.1:{shared.probes.port}")


# Draining


def test_while_it_drains_it_is_alive_and_not_ready(fleet: Fleet) -> None:
    over = threading.Event()
    issue = fleet.deployment.raw_stream(fleet.deployment.example_ca.issue(uris=[WEB]), "IssueToken")

    def nothing() -> Iterator[bytes]:
        over.wait(20)
        yield ASK.SerializeToString()

    call = issue.future(nothing())
    within(5, lambda: not call.done() and hanging_calls(fleet) > 0, "the call")
    fleet.supervisor.terminate()
    within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
    assert fleet.probes.state()["reasons"][0] == "draining"
    assert fleet.probes.get("/livez")[0] == 200
    over.set()
    assert pb.IssueTokenResponse.FromString(call.result(timeout=10)).token  # it was waited for
    assert fleet.deployment.started.wait(10) == 0


def hanging_calls(fleet: Fleet) -> int:
    """Connections that a worker has."""
    return sum(len([c for c in worker.net_connections() if c.status == "ESTABLISHED"]) for worker in fleet.workers())


def test_sigterm_drains_calls_in_flight_of_all_workers(fleet: Fleet) -> None:
    """As with one: a call is answered whole or fails in a way that clients retry, and all processes end."""
    workers = fleet.workers()
    batch = pb.BatchIssueTokensRequest(requests=[ASK] * 300)
    stubs = [fleet.deployment.caller(WEB) for _ in range(6)]
    for stub in stubs:
        stub.IssueToken(ASK)
    calls = [stub.BatchIssueTokens.future(batch) for stub in stubs for _ in range(3)]
    assert calls[0].result(timeout=20)
    fleet.supervisor.terminate()
    outcomes = [call.exception(timeout=20) for call in calls]
    assert fleet.deployment.started.wait(20) == 0
    assert psutil.wait_procs(workers, timeout=0)[1] == []
    failed = {code_of(error) for error in outcomes if error is not None}
    assert failed <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert {line["worker"] for line in fleet.events("stopped") if "worker" in line} == {0, 1}
    fleet.deployment.stop()


# Replacing


def test_rolling_restarts_under_load_fail_no_call_and_are_never_not_ready(fleet: Fleet) -> None:
    before = {worker.pid for worker in fleet.workers()}
    over = threading.Event()
    unready: list[str] = []

    def watch() -> None:
        while not over.wait(0.02):
            unready.extend(reason for reason in fleet.probes.state()["reasons"] if "doesn't answer" not in reason)

    watching = threading.Thread(target=watch)
    with Load(fleet) as load:
        watching.start()
        try:
            for _ in range(2):
                fleet.roll()
        finally:
            over.set()
            watching.join()
    assert load.failed == []
    assert unready == []
    assert not before & {worker.pid for worker in fleet.workers()}
    assert fleet.deployment.stop() == 0
    verdict = audit_verdict(fleet)
    assert verdict["fine"], verdict["problems"]
    assert len(verdict["chains"]) == 3  # one more than workers: a new one stands beside an old one
    assert sum(chain["lines"] for chain in verdict["chains"]) > load.answered


def test_a_rolling_restart_takes_up_changed_settings(fleet: Fleet) -> None:
    path = fleet.deployment.directory / "server.yaml"
    path.write_text(path.read_text().replace("reflection: true", "reflection: false"))
    fleet.roll()
    channel = fleet.deployment.channel(fleet.deployment.example_ca.issue(uris=[WEB]))
    reflect: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    assert refusal(lambda: list(reflect(iter([b""])))).code == "UNIMPLEMENTED"


def test_a_rolling_restart_with_bad_settings_leaves_the_workers_as_they_are(fleet: Fleet) -> None:
    before = {worker.pid for worker in fleet.workers()}
    path = fleet.deployment.directory / "server.yaml"
    path.write_text(f"{path.read_text()}\nnonsense: 1\n")
    fleet.supervisor.send_signal(signal.SIGUSR2)
    within(30, lambda: fleet.events("rolling restart aborted; existing workers keep running"), "giving up")
    (given_up,) = fleet.events("rolling restart aborted; existing workers keep running")
    assert "nonsense" in given_up["why"]
    assert {worker.pid for worker in fleet.workers()} == before
    assert fleet.probes.ready()


# The truth about the audit trail


def test_an_audit_folder_that_goes_away_shows_without_a_call_and_so_does_its_return(fleet: Fleet) -> None:
    folder = fleet.deployment.directory / "audit"
    folder.rename(folder.with_name("elsewhere"))
    within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
    assert "the audit trail can't be written" in fleet.probes.state()["reasons"][0]
    assert fleet.probes.get("/livez")[0] == 200
    assert refusal(lambda: fleet.deployment.caller(WEB).IssueToken(ASK)).reason == "AUDIT_UNAVAILABLE"
    folder.with_name("elsewhere").rename(folder)
    within(TRUTH + SLACK, fleet.probes.ready, "readiness")
    assert fleet.deployment.caller(WEB).IssueToken(ASK).token


def test_an_audit_folder_on_a_disk_that_is_read_only_shows(fleet: Fleet) -> None:
    folder = fleet.deployment.directory / "audit"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
        assert "Read-only file system" in fleet.probes.state()["reasons"][0]
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)
    within(TRUTH + SLACK, fleet.probes.ready, "readiness")


# One worker


def test_one_worker_has_the_same_probes_and_no_supervisor(tmp_path: Path) -> None:
    fleet = Fleet.create(tmp_path, "audit: {path: audit}")
    path = tmp_path / "server.yaml"
    path.write_text(path.read_text().replace("workers: 2", "workers: 1"))
    fleet.deployment.start()
    try:
        assert fleet.workers() == []
        assert fleet.probes.state() == {"ready": True, "reasons": [], "warnings": []}
        assert fleet.probes.get("/livez")[0] == 200
        assert "livekit_auth_log_lines_dropped 0.0" in fleet.probes.metrics()
        assert not any("worker" in line for line in fleet.events("serving"))
        shutil.move(tmp_path / "audit", tmp_path / "elsewhere")
        within(TRUTH + SLACK, lambda: not fleet.probes.ready(), "being not ready")
        shutil.move(tmp_path / "elsewhere", tmp_path / "audit")
        within(TRUTH + SLACK, fleet.probes.ready, "readiness")
        os.kill(fleet.supervisor.pid, signal.SIGUSR2)  # nothing to roll, and no reason to die
        within(5, lambda: fleet.deployment.log.count("SIGUSR2 is for the supervisor") == 1)
        assert fleet.deployment.caller(WEB).IssueToken(ASK).token
    finally:
        assert fleet.deployment.stop() == 0


def test_the_flag_wins_over_the_setting(tmp_path: Path) -> None:
    fleet = Fleet.create(tmp_path)
    command = [sys.executable, "-m", "livekit_auth_server.cli", "serve", "--config", str(tmp_path / "server.yaml")]
    process = psutil.Popen([*command, "--workers", "3"], stderr=subprocess.DEVNULL)
    try:
        within(30, fleet.probes.up, "readiness")
        assert len(process.children()) == 3
    finally:
        process.terminate()
        assert process.wait(30) == 0
