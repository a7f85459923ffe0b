"""A client in a forked child: its own connection and agent stream, or an error that says why not."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

import support.forking
from support.fake_agent import fake_agent, response

WORKLOAD = "spiffe://example.org/web"
DECISION = "dec-1"


@pytest.fixture
def start(environment):
    """Starts the program. `results` returns the output of each process."""

    async def start(pattern, **variables):
        command = [sys.executable, "-X", "faulthandler", support.forking.__file__, pattern]
        path = [os.environ.get("PYTHONPATH", ""), str(Path(support.forking.__file__).parents[1])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}
        return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env)

    return start


async def results(process):
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    said: dict[str, list[Any]] = {"parent": [], "child": []}
    for line in stdout.splitlines():
        report = json.loads(line)
        said[report["process"]].append(report["result"])
    assert process.returncode == 0, (said, stderr.decode())
    return said


async def test_children_of_a_used_client_have_their_own_connections(start, service):
    said = await results(await start("threads_used"))
    assert said == {"parent": [WORKLOAD] * 2, "child": [WORKLOAD] * 3}
    assert len(service.connections) == 1 + 3


@pytest.mark.slow
async def test_client_made_before_and_used_after_a_fork_works(start, service):
    said = await results(await start("asyncio_unused"))
    assert said["child"] == [WORKLOAD] * 3
    assert len(service.connections) == 3


@pytest.mark.slow
async def test_call_in_flight_at_a_fork_ends_only_in_the_parent(start, service):
    service.script.append(2.0)
    process = await start("threads_in_a_call")
    await service.called.wait()
    process.stdin.write(b"\n")
    assert await results(process) == {"parent": [WORKLOAD], "child": [WORKLOAD]}
    assert len(service.connections) == 2


@pytest.mark.slow
async def test_child_does_not_wait_for_the_parents_renewal(start, service):
    service.script.append(2.0)
    process = await start("source_renewing")
    await service.called.wait()
    process.stdin.write(b"\n")
    assert await results(process) == {"parent": [DECISION], "child": [DECISION]}
    assert len(service.requests) == 2


async def test_child_of_an_open_asyncio_client_gets_an_error(start, service):
    said = await results(await start("asyncio_open"))
    assert said["parent"] == [WORKLOAD]
    assert "RuntimeError: gRPC can't be used in this forked process: a client for asyncio was open" in said["child"][0]
    assert len(service.connections) == 1


@pytest.mark.slow
async def test_child_of_an_open_asyncio_client_can_use_the_sync_client(start, service):
    said = await results(await start("asyncio_open_threads_after"))
    assert said == {"parent": [WORKLOAD], "child": [WORKLOAD] * 3}
    assert len(service.connections) == 1 + 3


async def test_child_without_grpc_fork_support_gets_an_error(start):
    said = await results(await start("threads_used", GRPC_ENABLE_FORK_SUPPORT="0"))
    assert said["parent"] == [WORKLOAD] * 2
    assert all("GRPC_ENABLE_FORK_SUPPORT off" in result for result in said["child"])


@pytest.mark.slow
async def test_child_opens_its_own_stream_to_the_agent(start, service, authority, tmp_path):
    first, second = (authority.issue(uris=[WORKLOAD]) for _ in range(2))
    files = {f"LIVEKIT_AUTH_{name}": "" for name in ("CA", "CERT", "KEY")}
    with fake_agent(tmp_path, response((WORKLOAD, first, authority))) as agent:
        process = await start("stream_open", SPIFFE_ENDPOINT_SOCKET=agent.socket, **files)
        await happens(lambda: len(agent.headers) >= 2 and len(service.connections) >= 2)
        agent.put(response((WORKLOAD, second, authority)))
        await happens(lambda: service.peers[-1] == second.leaf_pem)
        process.stdin.write(b"\n")
        assert await results(process) == {"parent": [WORKLOAD], "child": [WORKLOAD]}


async def happens(condition):
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - set by another process
            await asyncio.sleep(0.01)
