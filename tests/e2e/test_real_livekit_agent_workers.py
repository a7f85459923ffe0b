"""livekit-agents workers that hold only a client certificate, with a real LiveKit server, through thick and thin."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from livekit import api

from e2e.agent_workers import AGENTS, EXAMPLES, agent_worker
from e2e.conftest import POLICY
from e2e.deployment import Deployment
from e2e.livekit_server import Ports, livekit_server
from e2e.participants import eventually, hears_something, joined
from e2e.processes import interruptible
from e2e.secrecy import Forged
from e2e.signalling import HandshakeRefusedError, worker
from e2e.webhook_listener import webhook_listener
from livekit_auth.agents import _http, _livekit_internals
from livekit_auth.v1.room_config_pb2 import RoomAgentDispatch, RoomConfig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTAGE = 20  # seconds
JOB_PATIENCE = 45


@dataclass
class Stack:
    """Both servers, each of which a test may stop and start again."""

    deployment: Deployment
    program: Path
    ports: Ports
    webhook_url: str
    _running: dict[str, ExitStack] = field(default_factory=dict)

    def start(self, name):
        servers = {
            "auth": self.deployment.serve,
            "livekit": lambda: livekit_server(
                self.program, self.deployment.directory, self.ports, self.deployment, self.webhook_url
            ),
        }
        self._running[name] = stack = ExitStack()
        stack.enter_context(servers[name]())

    def stop(self, name):
        self._running.pop(name).close()

    def close(self):
        for name in list(self._running):
            self.stop(name)

    def registrations(self):
        """The decisions that permitted a worker's registration, from the audit trail, in order."""
        trail = sorted((self.deployment.directory / "audit").glob("*.jsonl"))
        lines = [json.loads(line) for part in trail for line in part.read_text().splitlines()]
        of_workers = [line for line in lines if line.get("permitted") and line["powers"] == "agent"]
        return [line["decision_id"] for line in of_workers]

    async def guest(self, room, agent):
        """A token for someone who has an agent dispatched to the room."""
        config = RoomConfig(agents=[RoomAgentDispatch(agent_name=agent)])
        async with self.deployment.client("booking") as booking:
            return await booking.issue_token(room=room, identity="user-1", role="guest", room_config=config)


@pytest_asyncio.fixture(loop_scope="session")
async def stack(livekit_program, tmp_path):
    ports = Ports.free()
    deployment = Deployment.create(tmp_path / "deployment", ports.url)
    deployment.add_callers("e2e.example.org", "booking")
    # A worker's token that has no time left when the next is needed: so the service has to be waited for.
    policy = POLICY.read_text().replace("ttl: {default: 5m, max: 10m}", "ttl: {default: 30s, max: 10m}")
    (deployment.directory / POLICY.name).write_text(policy)
    async with webhook_listener() as listener:  # of its own: the shared one's are all signed with one key
        stack = Stack(deployment, livekit_program, ports, listener.url)
        with interruptible():
            stack.start("auth")
            stack.start("livekit")
            try:
                yield stack
            finally:
                stack.close()


async def test_the_example_worker_registers_and_joins(deployment, callers, tmp_path):
    dispatch = RoomConfig(agents=[RoomAgentDispatch(agent_name="greeter")])
    with agent_worker(EXAMPLES / "agent_worker.py", deployment, "agents", tmp_path) as greeter:
        await greeter.registered()
        for attempts_left in (2, 1, 0):  # LiveKit gives no job to a worker on a machine that is fully busy
            guest = await callers.booking.issue_token(
                room=_room(), identity="user-1", role="guest", room_config=dispatch
            )
            async with joined(guest) as here:
                try:
                    await _agent(here)
                except TimeoutError:
                    if not attempts_left:
                        raise
                else:
                    break


async def test_the_example_is_short():
    lines = [line for line in (EXAMPLES / "agent_worker.py").read_text().splitlines() if line.strip()]
    assert len([line for line in lines if not line.strip().startswith('"""')]) <= 10


async def test_a_job_publishes_and_calls_livekit_as_far_as_its_role_goes(deployment, callers, room, tmp_path):
    dispatch = RoomConfig(agents=[RoomAgentDispatch(agent_name="performer")])
    guest = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=dispatch)
    with agent_worker(AGENTS / "performer.py", deployment, "agents", tmp_path) as performer:
        await performer.registered()
        async with joined(guest) as here:
            agent = await _agent(here)
            tracks = agent.track_publications
            await eventually(lambda: any(t.track for t in tracks.values()), "the agent's tone is received")
            assert await hears_something(next(t.track for t in tracks.values()))
            await eventually(lambda: "all_rooms" in agent.attributes, f"the job reports; it wrote {performer.log}")
            exposed = performer.exposed()
    assert agent.attributes["own_room"].split() == sorted([agent.identity, "user-1"])
    assert agent.attributes["other_room"] == "HTTP 401"
    assert agent.attributes["all_rooms"] == "HTTP 401"
    assert agent.attributes["credentials"] == "none"
    assert len(exposed) >= 3, "the worker, its fork server and the job's process"
    for seen in exposed.values():
        assert deployment.key.secret.encode() not in seen
        assert b"LIVEKIT_API" not in seen
        assert b"eyJ" not in seen
    log = (tmp_path / "worker.log").read_text()
    assert deployment.key.secret not in log
    assert "eyJ" not in log


async def test_a_worker_connects_again_with_a_token_of_its_own(stack, tmp_path):
    with agent_worker(AGENTS / "performer.py", stack.deployment, "agents", tmp_path) as performer:
        await performer.registered()
        stack.stop("livekit")
        stack.start("livekit")
        await performer.registered(times=2)
        decisions = stack.registrations()
        assert len(set(decisions)) == len(decisions) >= 2, "a token for each attempt to connect"
        async with joined(await stack.guest(_room(), "performer")) as here:
            await _agent(here)


async def test_a_fleet_keeps_its_rooms_while_the_service_is_away_and_comes_back(stack, tmp_path):
    async def of_a_guest(number):
        return await stack.guest(f"consult-{number}", "performer")

    with ExitStack() as fleet:
        workers = [
            fleet.enter_context(agent_worker(AGENTS / "performer.py", stack.deployment, "agents", tmp_path / str(n)))
            for n in range(2)
        ]
        for member in workers:
            await member.registered()
        first, later, last = await asyncio.gather(*map(of_a_guest, range(3)))
        async with joined(first) as here:
            agent = await _agent(here)
            await eventually(lambda: "all_rooms" in agent.attributes, "the job has made its calls")
            stack.stop("auth")
            await asyncio.sleep(OUTAGE)
            assert agent.identity in here.remote_participants
            assert await hears_something(next(t.track for t in agent.track_publications.values()))
            async with joined(later) as there:  # LiveKit signs a job's token: no service is needed for it
                await _agent(there)
        stack.stop("livekit")
        stack.start("livekit")
        for member in workers:
            await member.says("retrying in")
        before = len(stack.registrations())
        stack.start("auth")
        for member in workers:
            await member.registered(times=2)
        assert len(stack.registrations()) == before + len(workers), "one request each: no storm"
        async with joined(last) as here:
            await _agent(here)


async def test_what_stands_in_for_key_and_secret_opens_nothing(deployment):
    server: Any = SimpleNamespace()
    _livekit_internals.set_placeholders(server)
    grants = api.VideoGrants(agent=True, room_list=True)
    token = api.AccessToken(server._api_key, server._api_secret).with_grants(grants).to_jwt()
    async with deployment.client("agents") as agents:
        url = (await agents.issue_token(role="agent-worker")).url
    with pytest.raises(HandshakeRefusedError) as refused:
        async with worker(Forged(token, url)):
            pytest.fail("LiveKit took a token signed with placeholders")
    assert refused.value.status == 401
    async with aiohttp.ClientSession() as session:
        for stand_in in (token, _http.STAND_IN):
            rooms = api.LiveKitAPI.with_token(stand_in, url, session=session).room
            with pytest.raises(api.ServerError) as denied:
                await rooms.list_rooms(api.ListRoomsRequest())
            assert denied.value.status == 401


async def _agent(room):
    """The agent in a room, once it has joined."""
    agents = lambda: [p for p in room.remote_participants.values() if p.identity.startswith("agent-")]  # noqa: E731
    async with asyncio.timeout(JOB_PATIENCE):  # a job's process may take long to start on a busy machine
        while not agents():  # noqa: ASYNC110 - the client's state has no event of its own
            await asyncio.sleep(0.05)
    return agents()[0]


def _room():
    return f"consult-{secrets.token_hex(4)}"
