"""A worker that signs with a made-up key, behind the proxy, with a real LiveKit server."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import aiohttp
import jwt
import pytest
import pytest_asyncio
from livekit import api
from livekit.protocol.agent import AvailabilityResponse, ServerMessage, SimulateJobRequest, WorkerMessage

from e2e.agent_workers import worker_process
from e2e.node_agent import NodeMissingError, installed
from e2e.participants import eventually, joined
from e2e.secrecy import Forged, keep_secret
from e2e.signalling import worker
from livekit_auth.agent_proxy._proxy import Rules, serving
from livekit_auth.v1.room_config_pb2 import RoomAgentDispatch, RoomConfig

pytestmark = pytest.mark.asyncio(loop_scope="session")

RULES = Rules(
    role="agent-worker", api_role="agent-api", allowed_api=frozenset({"livekit.RoomService/ListParticipants"})
)


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(callers):
    url = (await callers.agents.issue_token(role="agent-worker", validate_only=True)).url
    async with serving(callers.agents, RULES, url) as proxy:
        keep_secret(proxy.key.secret)
        yield proxy


def signed(proxy, **video):
    claims = {"iss": proxy.key.id, "exp": int(time.time()) + 60, "video": video}
    return Forged(jwt.encode(claims, proxy.key.secret, algorithm="HS256"), proxy.url)


async def test_a_worker_behind_the_proxy_registers_gets_a_job_and_joins(proxy, callers, room):
    dispatch = RoomConfig(agents=[RoomAgentDispatch(agent_name="proxied")])
    guest = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=dispatch)
    async with worker(signed(proxy, agent=True)) as connection:
        await connection.register("proxied")
        async with joined(guest) as here:
            job = (await connection.receive("availability")).availability.job
            answer = AvailabilityResponse(job_id=job.id, available=True, participant_identity="agent-of-proxy")
            await connection._send(WorkerMessage(availability=answer))
            assigned = (await connection.receive("assignment")).assignment
            async with joined(Forged(assigned.token, assigned.url)):
                await eventually(lambda: "agent-of-proxy" in here.remote_participants, "the agent is in")
    assert job.room.name == room
    assert assigned.url == guest.url


async def test_a_simulated_job_reaches_no_livekit(proxy):
    async with worker(signed(proxy, agent=True)) as connection:
        await connection.register("curious")
        simulate = WorkerMessage(simulate_job=SimulateJobRequest(room=api.Room(name="board-1")))
        await connection._send(simulate)
        ping = WorkerMessage()
        ping.ping.timestamp = 7
        await connection._send(ping)
        answer = ServerMessage.FromString(await connection._socket.receive_bytes())
    assert answer.WhichOneof("message") == "pong", "LiveKit answers in order, and offers no job"


async def test_a_call_goes_as_far_as_the_allow_list_and_the_role(proxy, callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with joined(guest), aiohttp.ClientSession() as session:
        rooms = api.LiveKitAPI(proxy.url, proxy.key.id, proxy.key.secret, session=session).room
        listed = await rooms.list_participants(api.ListParticipantsRequest(room=room))
        assert [participant.identity for participant in listed.participants] == ["user-1"]
        with pytest.raises(api.ServerError) as refused:
            await rooms.list_rooms(api.ListRoomsRequest())
        assert refused.value.status == 404
        with pytest.raises(api.ServerError) as denied:
            await rooms.list_participants(api.ListParticipantsRequest(room="board-1"))
        assert denied.value.status == 403


@pytest.fixture(scope="session")
def node_worker():
    """The folder of the Node worker. Without Node there is none: the test is skipped, but in CI that is a failure."""
    try:
        return installed()
    except NodeMissingError as error:
        missing = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


async def test_livekits_node_worker_registers_gets_a_job_and_joins(node_worker, deployment, callers, room, tmp_path):
    dispatch = RoomConfig(agents=[RoomAgentDispatch(agent_name="node")])
    guest = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=dispatch)
    command = [sys.executable, "-m", "livekit_auth.cli", "agent-proxy", "--"]
    command += ["node", str(node_worker / "agent.js"), "start"]
    with worker_process(command, deployment, "agents", tmp_path) as node:
        await node.registered()
        async with joined(guest) as here, asyncio.timeout(60):
            while not any(p.startswith("agent-") for p in here.remote_participants):  # noqa: ASYNC110 - no event of its own
                await asyncio.sleep(0.05)
            exposed = node.exposed()
    assert len(exposed) >= 3, "the proxy, the worker and the job's process"
    assert all(deployment.key.secret.encode() not in seen for seen in exposed.values())
    assert all(b"eyJ" not in seen for seen in exposed.values())
    assert "eyJ" not in (tmp_path / "worker.log").read_text()
