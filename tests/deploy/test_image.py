"""The image: built from hashed locks, run by nobody special, and what it installs serves on a read-only disk.

The Dockerfile's steps are run here one by one; that a Docker engine builds the image isn't shown.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from deploy.chart import GID, UID, Rendered
from deploy.image import DOCKERFILE, ROOT, Image, built, confined, exec_form, stages
from deploy.objects import CALLER, SECRET, Objects
from livekit_auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with built() as image:
        yield image


def test_it_runs_as_a_number_that_isnt_root() -> None:
    users = [step.value for step in stages()[-1] if step.name == "USER"]
    assert users == [f"{UID}:{GID}"]


def test_no_shell_stands_between_a_signal_and_the_server() -> None:
    assert exec_form("ENTRYPOINT") == ["livekit-auth-server"]
    assert exec_form("CMD") == ["serve", "--config", "/etc/livekit-auth/server.yaml"]


def test_everything_is_installed_by_hash_or_from_what_was_built_here() -> None:
    installs = [step.value for step in stages()[0] if " install " in step.value]
    assert len(installs) == 3
    assert all("--require-hashes --only-binary :all:" in line or "--no-index" in line for line in installs)


def test_nothing_is_fetched_by_other_means() -> None:
    assert not re.search(r"\b(curl|wget|ADD|git|apt-get)\b", DOCKERFILE.read_text())


def test_only_what_is_built_from_enters_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    sources = [name for step in stages()[0] if step.name == "COPY" for name in step.value.split()[:-1]]
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(sources)


def test_what_is_installed_is_the_lock_and_the_two_wheels(image: Image) -> None:
    packages = image.folder / "opt/livekit-auth/lib"
    installed = {name(path.name.split("-")[0]) for path in packages.glob("python*/site-packages/*.dist-info")}
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements/server.txt").read_text(), re.MULTILINE))
    assert installed <= locked | {"livekit-auth", "livekit-auth-server"}  # the lock is for other platforms too
    assert {"livekit-auth", "livekit-auth-server", "grpcio", "redis", "spiffe"} <= installed
    assert not {"pip", "setuptools", "pytest"} & installed


def name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(("option", "shown"), [("--version", "livekit-auth-server 0."), ("--help", "serve")])
def test_its_program_runs(image: Image, option: str, shown: str) -> None:
    done = subprocess.run([image.program, option], capture_output=True, text=True, check=False, env=clean())
    assert (done.returncode, shown in done.stdout) == (0, True), done.stderr


def clean(**more: str) -> dict[str, str]:
    """A container's environment: nothing of this test's."""
    return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **more}


def test_the_chart_serves_with_it_on_a_read_only_disk_and_stops_at_sigterm(image: Image) -> None:
    """As a pod would: the rendered settings, the volume's links and modes, user 10001, one folder to write to."""
    objects = Objects()
    with tempfile.TemporaryDirectory(prefix="livekit-auth-pod-") as name:
        pod = Path(name)
        pod.chmod(0o755)
        for folder in ("etc", "state"):
            (pod / folder).mkdir()
        if os.geteuid() == 0:  # as fsGroup has it
            os.chown(pod / "state", 0, GID)
        (pod / "state").chmod(0o2775)
        given = objects.all()
        Rendered.variant("default").mount(pod / "etc", given)
        port, metrics = free_port(), free_port()
        settings = {
            "LISTEN": f"127.0.0.1:{port}",
            "METRICS": f"127.0.0.1:{metrics}",
            "AUDIT__PATH": str(pod / "state/audit"),
        }
        command = confined([image.program, "serve", "--config", pod / "etc/server.yaml"], [pod / "state"])
        environment = clean(**{f"LIVEKIT_AUTH_SERVER_{key}": value for key, value in settings.items()})
        with (pod / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log, cwd="/", env=environment)
        try:
            wait_for(pod / "log", '"event":"serving"', process)
            channel = grpc.secure_channel(f"localhost:{port}", credentials(objects))
            with channel:
                stub = auth_service_pb2_grpc.AuthServiceStub(channel)
                request = auth_service_pb2.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
                assert stub.IssueToken(request, timeout=10).token
                reloaded_with_nobody_allowed(pod, given, process)
                with pytest.raises(grpc.RpcError) as refused:
                    stub.IssueToken(request, timeout=10)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        text = (pod / "log").read_text()
        assert '"event":"stopped"' in text
        assert SECRET not in text
        assert len((pod / "state/audit/audit.0.jsonl").read_text().splitlines()) >= 2
        check = [str(image.program), "check", "--config", str(pod / "etc/server.yaml")]
        done = subprocess.run(check, capture_output=True, text=True, check=False, cwd="/", env=environment)
        assert "agree with livekit-api" in done.stdout, done.stderr


def credentials(objects: Objects) -> grpc.ChannelCredentials:
    caller = objects.callers.issue(uris=[CALLER])
    return grpc.ssl_channel_credentials(objects.internal.leaf_pem, caller.key_pem, caller.cert_pem)


def reloaded_with_nobody_allowed(
    pod: Path, given: Mapping[str, Mapping[str, bytes]], process: subprocess.Popen[bytes]
) -> None:
    """An update of the policy's ConfigMap, as the kubelet brings it."""
    empty = Rendered.variant("default", policy={"inline": {"callers": []}})
    empty.mount(pod / "etc", given, version="..2")
    wait_for(pod / "log", '"kind":"policy"', process)


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if text in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text} didn't come: {log.read_text()[-2000:]}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_confinement_confines() -> None:
    """So that the test above means something: nothing else can be written, and the user is another."""
    with tempfile.TemporaryDirectory(prefix="livekit-auth-pod-") as name:
        Path(name).chmod(0o755)
        state = Path(name) / "state"
        state.mkdir()
        state.chmod(0o777)
        code = (
            "import json, os, sys\n"
            "def can(path):\n"
            "    try: open(path + '/livekit-auth-probe', 'w').close()\n"
            "    except OSError as error: return error.strerror\n"
            "    return 'written'\n"
            "print(json.dumps([os.getuid(), os.getgid(), *map(can, sys.argv[1:])]))\n"
        )
        command = confined([sys.executable, "-c", code, str(state), "/tmp", "/var/tmp"], [state])  # noqa: S108
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        read_only = "Read-only file system"
        assert json.loads(done.stdout) == [UID, GID, "written", read_only, read_only]
