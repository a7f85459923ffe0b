"""What a server does with the process that it is given: few descriptors or threads, closed streams, early signals.

Each is one line and an exit code, or service; never a traceback, an abort or a server that can't be told anything.
"""

from __future__ import annotations

import resource
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.process.operating_system import RESERVE
from support.deployment import environment
from support.moments import at_import
from support.ports import free_port
from support.probes import Probes, within
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from support.deployment import Deployment

WEB = "spiffe://example.org/web"
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
PROGRAM = str(Path(sys.executable).with_name("livekit-auth-server"))
FEW = 256  # descriptors


def limited(name: int, soft: int, hard: int | None = None) -> Callable[[], None]:
    return lambda: resource.setrlimit(name, (soft, soft if hard is None else hard))


def ends(
    deployment: Deployment, *, setup: Callable[[], None] | None = None, code: Path | None = None, program: str = ""
) -> tuple[int, str]:
    """The exit code of a server that doesn't come to serve, and its one line."""
    command = [program, *deployment.command("serve")[3:]] if program else deployment.command("serve")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, preexec_fn=setup, env=environment(code)
    )
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def refused(caller: AuthServiceStub) -> bool:
    try:
        caller.IssueToken(ASK, timeout=10)
    except grpc.RpcError:
        return True
    return False


# Descriptors


@pytest.mark.parametrize("limit", [8, 20, RESERVE])
def test_too_few_descriptors_are_one_line_and_an_exit_code(deployment: Deployment, limit: int) -> None:
    code, line = ends(deployment, setup=limited(resource.RLIMIT_NOFILE, limit))
    assert code == 2
    assert f"may open {limit} files" in line
    assert "ulimit -n" in line


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_that_dont_fit_into_the_descriptor_limit_are_refused(deployment: Deployment, workers: int) -> None:
    deployment.write(f"workers: {workers}\nlimits: {{connections: {FEW - RESERVE + 1}}}")
    code, line = ends(deployment, setup=limited(resource.RLIMIT_NOFILE, 64, FEW))
    assert code == 2
    assert line.startswith("livekit-auth-server: limits.connections: ")
    assert f"at most {FEW - RESERVE}," in line
    assert "descriptor limit" in line


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", f", connections: {FEW - RESERVE}"])
def test_silent_sockets_keep_neither_a_revocation_nor_probes_nor_rotation_out(
    deployment: Deployment, extra: str
) -> None:
    """Four times as many sockets as descriptors, without any certificate, from now until the end."""
    probes, folder = Probes(free_port()), deployment.directory
    deployment.write(
        f"metrics: 127.0.0.1:{probes.port}\naudit: {{path: audit, required: true}}\nlimits: {{handshake: 60{extra}}}"
    )
    path = folder / "server.yaml"
    path.write_text(path.read_text().replace("dns.pem\n", "dns.pem\n  deny_list: deny.yaml\n", 1))
    (folder / "deny.yaml").write_text("version: 1\ndeny: []\n")
    deployment.start(under=["sh", "-c", f'ulimit -Sn 64; ulimit -Hn {FEW}; exec "$0" "$@"'])
    assert deployment.process is not None
    server, caller = psutil.Process(deployment.process.pid), deployment.caller(WEB)
    assert caller.IssueToken(ASK, timeout=10).token
    crowd = [socket.socket() for _ in range(4 * FEW)]
    try:
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", deployment.port))
        within(30, lambda: server.num_fds() > 60, "the crowd")  # more than the soft limit leaves
        (folder / "audit" / "audit.0.jsonl").rename(folder / "audit" / "audit.0.jsonl.1")
        assert caller.IssueToken(ASK, timeout=10).token  # in a new file
        assert probes.ready()
        (folder / "deny.new").write_text(f"version: 1\ndeny: [{{id: {WEB}}}]\n")
        (folder / "deny.new").rename(folder / "deny.yaml")
        within(20, lambda: refused(caller), "the revocation")
        assert refusal(lambda: caller.IssueToken(ASK, timeout=10)).reason == "CERTIFICATE_REVOKED"
        assert probes.get("/livez")[0] == 200
        assert FEW - RESERVE < server.num_fds() < FEW
        assert "can't be read" not in deployment.log
    finally:
        for one in crowd:
            one.close()


# Threads


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_too_few_threads_are_one_line_and_an_exit_code(deployment: Deployment, workers: int) -> None:
    """Stacks of 4 GiB in 40 GiB of address space: nine threads."""
    deployment.write(f"workers: {workers}")

    def few_threads() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (4 << 30, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (40 << 30, 40 << 30))

    code, line = ends(deployment, setup=few_threads)
    assert code == 2
    assert "threads: only" in line
    assert "ulimit -u" in line


# Standard streams


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_a_closed_stdin_or_stdout_makes_no_difference(deployment: Deployment, closed: str) -> None:
    deployment.start(under=["sh", "-c", f'exec "$0" "$@" {closed}'])
    assert deployment.caller(WEB).IssueToken(ASK, timeout=10).token
    assert deployment.stop() == 0
    assert "Assertion" not in deployment.log
    assert "Traceback" not in deployment.log


@pytest.mark.parametrize(("closed", "shown"), [("2>&-", 1), (">&- 2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_without_a_place_for_the_log_nothing_is_served(deployment: Deployment, closed: str, shown: int) -> None:
    command = f"{shlex.join(deployment.command('serve'))} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 2
    assert done.stdout.count("livekit-auth-server: stderr is closed") == shown
    assert len(done.stdout.splitlines()) == shown


# Signals


@pytest.mark.slow
@pytest.mark.parametrize("program", ["", PROGRAM])
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR2"])
@pytest.mark.parametrize("module", ["typer", "grpc"])
def test_a_signal_to_reload_or_roll_in_the_first_second_ends_nothing(
    deployment: Deployment, tmp_path: Path, program: str, name: str, module: str
) -> None:
    code = at_import(tmp_path / "code", module, f"os.kill(os.getpid(), signal.{name})")
    command = [program, *deployment.command("serve")[3:]] if program else deployment.command("serve")
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stderr=log, env=environment(code)) as process,
    ):
        try:
            expected = '"event":"reload requested"' if name == "SIGHUP" else "SIGUSR2 is for the supervisor"
            within(
                120,
                lambda: process.poll() is not None or expected in (tmp_path / "log").read_text(),
                "what it asks for",
            )
            assert process.poll() is None
            assert '"event":"serving"' in (tmp_path / "log").read_text()
        finally:
            process.terminate()
            assert process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.parametrize("module", ["typer", "grpc", "uvloop", "livekit_auth_server.reload.reloader"])
def test_sigint_while_it_starts_is_one_line_and_an_exit_code(
    deployment: Deployment, tmp_path: Path, module: str
) -> None:
    code = at_import(tmp_path / "code", module, "os.kill(os.getpid(), signal.SIGINT)")
    assert ends(deployment, code=code) == (130, "livekit-auth-server: interrupted before it served")
