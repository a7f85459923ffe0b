"""Agent workers without the secret: registering with a real LiveKit server, and how far their tokens go."""

from __future__ import annotations

import pytest

from e2e.participants import eventually, joined
from e2e.secrecy import Forged
from e2e.signalling import HandshakeRefusedError, signalling, worker
from livekit_auth import Denied
from livekit_auth.v1.room_config_pb2 import RoomAgentDispatch, RoomConfig

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_worker_registers_with_an_issued_token(callers):
    token = await callers.agents.issue_token(role="agent-worker")
    async with worker(token) as connection:
        registered = (await connection.register("interpreter")).register
    assert registered.worker_id
    assert registered.server_info.version == "1.8.4"


async def test_a_guests_token_registers_no_worker(callers, room):
    token = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    with pytest.raises(HandshakeRefusedError) as refused:
        async with worker(token):
            pytest.fail("LiveKit took a guest for a worker")
    assert refused.value.status == 401


async def test_a_workers_token_joins_no_room(callers, room):
    token = await callers.agents.issue_token(role="agent-worker")
    with pytest.raises(HandshakeRefusedError) as refused:
        async with signalling(token, room=room):
            pytest.fail("LiveKit let a worker join")
    assert refused.value.status == 401


async def test_agents_named_in_a_join_token_are_dispatched_to_the_room(callers, room):
    with_scribe = RoomConfig(agents=[RoomAgentDispatch(agent_name="scribe", metadata="minutes")])
    worker_token = await callers.agents.issue_token(role="agent-worker")
    guest = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=with_scribe)
    async with worker(worker_token) as connection:
        await connection.register("scribe")
        async with joined(guest):
            job = (await connection.receive("availability")).availability.job
    assert (job.room.name, job.agent_name, job.metadata) == (room, "scribe", "minutes")


async def test_a_web_backend_may_not_name_agents(callers, room):
    with_scribe = RoomConfig(agents=[RoomAgentDispatch(agent_name="scribe")])
    with pytest.raises(Denied) as denied:
        await callers.web.issue_token(room=room, identity="user-1", role="guest", room_config=with_scribe)
    assert denied.value.reason == "POWER_NOT_PERMITTED"
    assert "room_config_agents" in denied.value.metadata["powers"]


async def test_a_worker_reaches_any_room_which_is_why_agent_is_only_given_with_any_room(callers):
    """LiveKit assigns a worker the job that it makes up itself, with a join token for the room that it names."""
    token = await callers.agents.issue_token(role="agent-worker")
    async with worker(token) as connection:
        await connection.register("curious")
        assigned = Forged(await connection.simulate_job("board-1"), token.url)
        async with joined(assigned) as room:
            await eventually(room.isconnected, "the worker is in")
            assert room.name == "board-1"
