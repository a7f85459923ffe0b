"""agent-proxy and its worker as processes: the credentials file, and ending together."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import psutil
import pytest

from livekit_auth import AuthClient, ConfigError
from livekit_auth.agent_proxy import _die_with_parent
from livekit_auth.agent_proxy._proxy import Rules
from livekit_auth.agent_proxy._run import run

pytestmark = pytest.mark.slow

RULES = Rules(role="agent-worker")
PATIENCE = 30  # seconds
LEFT_OVER = "LIVEKIT_URL=ws://127.0.0.1:1\nLIVEKIT_API_KEY=APIproxy0123\nLIVEKIT_API_SECRET=old\n"


@pytest.fixture
def auth(address, files, environment, monkeypatch):
    monkeypatch.delenv("LIVEKIT_API_SECRET", raising=False)
    return AuthClient(address, **files)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "credentials"


def child(code):
    return [sys.executable, "-c", code]


def waiting(pid_file):
    """A worker that writes its process id and waits."""
    return child(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(120)")


@contextlib.asynccontextmanager
async def agent_proxy(*options, worker):
    command = [sys.executable, "-m", "livekit_auth.cli", "agent-proxy", *options, "--", *worker]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def pid_in(file):
    async with asyncio.timeout(PATIENCE):
        while not (file.exists() and file.read_text().endswith(".")):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)
    return int(file.read_text()[:-1])


async def test_sigkill_ends_the_worker_and_its_file_is_reused(environment, tmp_path, path):
    pid_file = tmp_path / "pid"
    async with agent_proxy("--credentials-file", str(path), worker=waiting(pid_file)) as proxy:
        worker = psutil.Process(await pid_in(pid_file))
        left = path.read_text()
        proxy.kill()
        await asyncio.to_thread(worker.wait, PATIENCE)
    assert path.read_text() == left
    read = f"text = open({str(path)!r}).read(); raise SystemExit(text == {left!r} or 'LIVEKIT_URL' not in text)"
    async with agent_proxy("--credentials-file", str(path), worker=child(read)) as proxy:
        assert await asyncio.wait_for(proxy.wait(), PATIENCE) == 0
    assert not path.exists()


async def test_file_of_a_running_proxy_is_left_alone(environment, tmp_path, path):
    pid_file = tmp_path / "pid"
    async with agent_proxy("--credentials-file", str(path), worker=waiting(pid_file)):
        await pid_in(pid_file)
        held = path.read_text()
        async with agent_proxy("--credentials-file", str(path), worker=["true"]) as second:
            _, told = await asyncio.wait_for(second.communicate(), PATIENCE)
        assert second.returncode == 2
        assert b"another agent-proxy is using it" in b" ".join(told.split())
        assert path.read_text() == held


@pytest.mark.parametrize(
    "content", ["LIVEKIT_API_KEY=APIreal\n", LEFT_OVER.replace("APIproxy", "API"), "x", LEFT_OVER + "X=1\n"]
)
async def test_file_that_agent_proxy_did_not_write_is_left_alone(auth, path, content):
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="agent-proxy didn't write it"):
        await run(auth, RULES, ["true"], path)
    assert path.read_text() == content


@pytest.mark.parametrize("content", ["", LEFT_OVER])
async def test_file_of_an_earlier_proxy_is_reused(auth, path, content):
    path.touch(0o600)
    path.write_text(content)
    assert await run(auth, RULES, ["true"], path) == 0
    assert not path.exists()


async def test_file_that_others_may_read_is_refused(auth, path):
    path.touch(0o644)
    with pytest.raises(ConfigError, match="others own it, link to it or may access it"):
        await run(auth, RULES, ["true"], path)


async def test_fifo_instead_of_the_file_is_refused_without_waiting(auth, path):
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="isn't a regular file"):
        await asyncio.wait_for(run(auth, RULES, ["true"], path), PATIENCE)


async def test_command_whose_parent_has_ended_is_not_started(tmp_path):
    """The kernel doesn't signal the end of a parent that ended before prctl."""
    started = tmp_path / "started"
    command = [sys.executable, "-I", "-S", _die_with_parent.__file__, "1", "touch", str(started)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"agent-proxy has exited" in told
    assert not started.exists()


async def test_worker_inherits_signal_handling_and_environment(auth, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")
    assert await run(auth, RULES, ["sh", "-c", "grep SigIgn /proc/self/status; echo $PYTHONWARNINGS"]) == 0
    ignored, warnings = capfd.readouterr().out.splitlines()
    assert not int(ignored.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGINT - 1)
    assert warnings == "ignore::DeprecationWarning"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"HTTPS_PROXY": "http://proxy.example.org"}, "127.0.0.1"),
        ({"https_proxy": "http://proxy.example.org", "no_proxy": "example.org"}, "example.org,127.0.0.1"),
        ({"ALL_PROXY": "http://proxy.example.org", "NO_PROXY": "*"}, None),
        ({}, None),
    ],
)
async def test_workers_connection_to_agent_proxy_uses_no_other_proxy(auth, capfd, monkeypatch, given, expected):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("grpc_proxy", "")  # the server is on this machine
    monkeypatch.setenv("no_grpc_proxy", "localhost")
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    assert await run(auth, RULES, child(show)) == 0
    environment = json.loads(capfd.readouterr().out)
    if expected is None:
        assert environment.get("NO_PROXY") == given.get("NO_PROXY")
    else:
        assert environment["NO_PROXY"] == environment["no_proxy"] == expected
