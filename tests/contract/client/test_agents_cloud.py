"""Complete livekit-agents workers in their own processes: recording, LiveKit Inference, and how they end.

Runs with each supported version of livekit-agents: `make compat-agents`.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

from support.fake_auth_server import refusal
from support.fake_cloud import SigningAuthService, serving_cloud

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("workers") / "cloud.py"
PATIENCE = 90  # seconds; workers and job processes import a lot, and the machine may be busy


@pytest.fixture
def service():
    return SigningAuthService()


@pytest.fixture
async def cloud(service):
    async with serving_cloud() as cloud:
        service.url = cloud.url.replace("http", "ws")
        yield cloud


class Worker:
    def __init__(self, process, folder):
        self.process = process
        self.result = folder / "result.json"
        self.said = b""

    async def read(self):
        async for line in self.process.stdout:
            self.said += line

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition() and self.process.returncode is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert condition(), self.said.decode(errors="replace")[-3000:]


@contextlib.asynccontextmanager
async def working(cloud, address, files, folder, *arguments, **variables):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "LIVEKIT_OBSERVABILITY_URL": cloud.url,
        "LIVEKIT_INFERENCE_URL": f"{cloud.url}/inference",
        "LIVEKIT_AUTH_ADDRESS": address,
        "TEST_RESULT": str(folder / "result.json"),
        **{f"LIVEKIT_AUTH_{name.upper()}": str(path) for name, path in files.items()},
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(WORKER), *(arguments or ("dev", "--no-reload"))),
        env=environment,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    worker = Worker(process, folder)
    reading = asyncio.create_task(worker.read())
    try:
        yield worker
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
        await reading


async def test_recording_and_inference_have_tokens_of_their_roles(cloud, service, address, files, tmp_path):
    roles = {"TEST_INFERENCE_ROLE": "agent-inference", "TEST_OBSERVABILITY_ROLE": "agent-observability"}
    async with working(cloud, address, files, tmp_path, **roles) as worker:
        await worker.until(worker.result.exists)
        await worker.until(lambda: "/observability/recordings/v0" in cloud.accepted)
        await worker.until(lambda: "/observability/traces/otlp/v0" in cloud.accepted)
    assert json.loads(worker.result.read_text()) == {"session": "started", "inference": "hello"}
    assert "/inference/chat/completions" in cloud.accepted
    assert "/observability/logs/otlp/v0" in cloud.accepted
    assert cloud.refused == []
    assert set(service.roles()) == {"agent-worker", "agent-inference", "agent-observability"}
    assert len(service.connections) <= 3, "one connection a process"
    assert b"Traceback" not in worker.said, worker.said.decode()[-3000:]
    assert b"eyJ" not in worker.said


async def test_without_roles_recording_is_off_and_inference_is_refused(cloud, service, address, files, tmp_path):
    async with working(cloud, address, files, tmp_path) as worker:
        await worker.until(worker.result.exists)
        await worker.until(lambda: b"process exiting" in worker.said or b"shutting down job" in worker.said)
    found = json.loads(worker.result.read_text())
    assert found["session"] == "started"
    assert found["inference"].startswith(
        "ConfigError: LiveKit Inference has no token: pass AgentServer an inference_role"
    )
    assert worker.said.count(b"Recording is off: pass AgentServer an observability_role") == 1
    assert [path for path in cloud.accepted if path != "/agent"] == cloud.refused == []
    assert set(service.roles()) == {"agent-worker"}


async def test_refused_worker_logs_why_and_exits_with_1(cloud, service, address, files, tmp_path):
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", "this role isn't yours"))
    async with working(cloud, address, files, tmp_path, "start") as worker:
        assert await asyncio.wait_for(worker.process.wait(), PATIENCE) == 1
    assert b"The worker exits with code 1: this role isn't yours (ROLE_NOT_PERMITTED)" in worker.said


async def test_connect_command_is_refused_with_the_reason(cloud, service, address, files, tmp_path):
    url = {"LIVEKIT_URL": cloud.url}
    async with working(cloud, address, files, tmp_path, "connect", "--room", "lobby", **url) as worker:
        assert await asyncio.wait_for(worker.process.wait(), PATIENCE) == 1
    said = b" ".join(worker.said.split())
    assert b"`connect` creates a job with an API key, and this worker has none. Run `dev`" in said
    assert b"Traceback" not in said
