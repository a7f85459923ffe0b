"""AgentServer with the real livekit-agents: what it relies on, and what LiveKit and the environment get.

Runs with every version of livekit-agents that is supported: `make compat-agents`.
"""

import asyncio
import contextlib
import os
import pickle
import socket
import time
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from livekit import agents, api
from livekit.agents.utils import http_context
from livekit.protocol.agent import ServerMessage, WorkerMessage

from livekit_auth import ConfigError, Denied, TokenRequest, TokenSource, sync
from livekit_auth._workers.tokens import WorkerTokens
from livekit_auth.agents import AgentServer, _http, _livekit_internals
from livekit_auth.agents._job import Entrypoint
from livekit_auth.agents._settings import Settings
from support.fake_auth_server import TOKEN, refusal
from support.http_server import listening

pytestmark = pytest.mark.slow

PATIENCE = 20  # seconds


class LiveKit:
    """A fake LiveKit server for workers and calls. Records their headers. `refusing` is a status to respond with."""

    def __init__(self):
        self.url = ""
        self.authorizations = []
        self.registered = []
        self.calls = []
        self.refusing = None
        self.sockets = []
        self.redirect = None
        self.agent_elsewhere = None

    async def agent(self, request):
        self.authorizations.append(request.headers.get("Authorization"))
        if self.agent_elsewhere:
            raise web.HTTPTemporaryRedirect(self.agent_elsewhere)
        if self.refusing:
            return web.Response(status=self.refusing)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        message = WorkerMessage.FromString(await socket.receive_bytes())
        answer = ServerMessage()
        answer.register.worker_id = f"AW_{len(self.sockets)}"
        await socket.send_bytes(answer.SerializeToString())
        self.registered.append(message.register.agent_name)
        async for _ in socket:
            pass
        return socket

    async def twirp(self, request):
        self.calls.append(request.headers.get("Authorization"))
        if self.refusing:
            return web.Response(status=self.refusing)
        if self.redirect:
            raise web.HTTPTemporaryRedirect(self.redirect)
        return web.Response(body=api.ListRoomsResponse().SerializeToString())


@contextlib.asynccontextmanager
async def serving_livekit():
    livekit = LiveKit()
    application = web.Application()
    application.router.add_get("/agent", livekit.agent)
    application.router.add_post("/twirp/{method:.*}", livekit.twirp)
    async with listening(application) as address:
        livekit.url = f"ws://{address}"
        yield livekit


@pytest.fixture
async def livekit():
    async with serving_livekit() as livekit:
        yield livekit


@pytest.fixture(autouse=True)
def no_livekit_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LIVEKIT_")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("LIVEKIT_")]:  # livekit-agents sets LIVEKIT_URL
        monkeypatch.delenv(name)


async def entrypoint(ctx):
    """Never runs here."""


@pytest.fixture
def server(livekit, environment):
    server = AgentServer(ws_url=livekit.url, host="127.0.0.1", port=0)
    server.rtc_session(entrypoint, agent_name="greeter")
    return server


@contextlib.asynccontextmanager
async def running(server):
    task = asyncio.create_task(server.run(devmode=True))
    try:
        yield task
    finally:
        await server.aclose()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def test_livekit_agents_has_the_required_private_names():
    _livekit_internals.check(agents.AgentServer())


def test_version_without_a_required_name_is_refused(monkeypatch):
    monkeypatch.delattr(agents.AgentServer, "_connection_task")
    with pytest.raises(ConfigError, match=r"no AgentServer\._connection_task: .* works with 1\.7 and 1\.8; install"):
        AgentServer()


async def test_worker_registers_with_a_token_from_the_server(server, livekit, service):
    async with running(server):
        await until(lambda: livekit.registered)
    assert livekit.registered == ["greeter"]
    assert livekit.authorizations == [f"Bearer {TOKEN}"]
    assert [request.role for request in service.requests] == ["agent-worker"]


async def test_each_connection_requests_a_token(server, livekit, service):
    async with running(server):
        await until(lambda: livekit.registered)
        await livekit.sockets[0].close()
        await until(lambda: len(livekit.registered) == 2)
    assert len(service.requests) == 2


async def test_projects_url_is_the_default(livekit, environment, service):
    service.url = livekit.url
    server = AgentServer(host="127.0.0.1", port=0)
    server.rtc_session(entrypoint)
    async with running(server):
        await until(lambda: livekit.registered)
    assert len(service.requests) == 1, "the token that the url came with is the one to connect with"


async def test_no_credential_is_in_the_environment(server, livekit):
    async with running(server):
        await until(lambda: livekit.registered)
        assert not [name for name in os.environ if name.startswith("LIVEKIT_API") or TOKEN in os.environ[name]]
        assert os.environ["LIVEKIT_URL"] == livekit.url


async def test_second_run_exports_nothing(server, livekit):
    for times in (1, 2):
        async with running(server):
            await until(lambda times=times: len(livekit.registered) == times)
            assert not [name for name in os.environ if name.startswith("LIVEKIT_API")]


def test_placeholders_are_random_and_useless(server):
    made = []
    for _ in range(2):
        _livekit_internals.set_placeholders(server)
        made.append(server._api_secret)
    assert len(set(made)) == 2
    assert all(len(secret) >= 43 for secret in made)


@pytest.mark.parametrize("variable", ["LIVEKIT_API_SECRET", "LIVEKIT_INFERENCE_API_SECRET", "LIVEKIT_KEYS"])
async def test_secret_in_the_environment_is_refused(server, monkeypatch, variable):
    monkeypatch.setenv(variable, "hush-hush")
    with pytest.raises(ConfigError, match=f"{variable} is set") as refused:
        AgentServer()
    assert "hush" not in str(refused.value)
    with pytest.raises(ConfigError, match=f"{variable} is set"):  # such as from a .env file, after construction
        await server.run()


@pytest.mark.parametrize("given", [{"api_secret": "hush-hush"}, {"api_key": "APIkey"}])
def test_key_or_secret_argument_is_refused(given):
    with pytest.raises(ConfigError, match="needs no API key or secret"):
        AgentServer(**given)


def test_update_options_refuses_a_secret_and_ignores_a_key(server):
    with pytest.raises(ConfigError, match="needs no API key or secret"):
        server.update_options(api_secret="hush-hush")
    server.update_options(api_key="APIkey", ws_url="ws://other.example.org")
    assert server._api_key == ""
    assert server._auth_url == "ws://other.example.org"


async def test_worker_refused_at_start_ends_at_once(server, livekit, service):
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
    async with running(server) as run:
        with pytest.raises(Denied):
            await asyncio.wait_for(run, PATIENCE)
    assert livekit.authorizations == []


async def test_worker_refused_later_retries_as_livekit_agents_does(server, livekit, service, caplog):
    async with running(server):
        await until(lambda: livekit.registered)
        service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
        await livekit.sockets[0].close()
        await until(lambda: len(livekit.registered) == 2)
    assert len(service.requests) == 3
    assert "livekit-auth refused a token for the worker: no (ROLE_NOT_PERMITTED)" in caplog.text


async def test_worker_without_attempts_left_ends_with_an_error(livekit, environment, service):
    server = AgentServer(ws_url=livekit.url, host="127.0.0.1", port=0, max_retry=0)
    server.rtc_session(entrypoint)
    async with running(server) as run:
        await until(lambda: livekit.registered)
        service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
        await livekit.sockets[0].close()
        with pytest.raises(RuntimeError, match="failed to connect to livekit"):
            await asyncio.wait_for(run, PATIENCE)


async def test_rate_limit_at_start_is_waited_for(server, livekit, service):
    service.script.append(refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=0))
    async with running(server):
        await until(lambda: livekit.registered)
    assert len(service.requests) == 2


async def test_refusal_by_livekit_shows_no_token(server, livekit, caplog):
    caplog.set_level("DEBUG")
    livekit.refusing = 401
    async with running(server):
        await until(lambda: len(livekit.authorizations) >= 2)
    warned = [record for record in caplog.records if "failed to connect to livekit" in record.message]
    assert warned
    assert all(isinstance(record.error, _http.WorkerRefusedError) for record in warned)
    assert TOKEN not in caplog.text + "".join(repr(vars(record)) for record in caplog.records)


async def test_simulated_job_needs_a_token(server):
    with pytest.raises(ConfigError, match="needs a token"):
        await server.simulate_job("lobby", agent_identity="agent", room_info=api.Room(name="lobby"))


async def test_code_reload_ends_jobs(server, caplog):
    await server._reload_jobs([object()])
    assert "1 jobs end with this reload" in caplog.text


def test_job_process_gets_only_names_and_paths(files, address):
    settings = Settings(role="w", api_role="api", project="", address=address, **{n: str(p) for n, p in files.items()})
    pickled = pickle.dumps(Entrypoint(entrypoint, settings))
    assert b"PRIVATE" not in pickled
    assert files["key"].read_bytes() not in pickled
    assert pickle.loads(pickled).settings == settings  # noqa: S301 - pickled above


@contextlib.asynccontextmanager
async def calling(client, url, role="agent-api"):
    """LiveKitAPI as in `ctx.api`."""
    source = TokenSource(client, TokenRequest(role=role, room="lobby"))
    async with aiohttp.ClientSession() as session:
        yield api.LiveKitAPI.with_token(
            _http.STAND_IN, url, session=cast("aiohttp.ClientSession", _http.ApiSession(session, source))
        )


async def test_jobs_calls_have_a_token_of_its_role(client, service, livekit):
    async with calling(client, livekit.url) as livekit_api:
        for _ in range(2):
            await livekit_api.room.list_rooms(api.ListRoomsRequest())
    assert livekit.calls == [f"Bearer {TOKEN}"] * 2
    assert [(request.role, request.room) for request in service.requests] == [("agent-api", "lobby")]


async def test_jobs_call_refused_by_the_policy_raises(client, service, livekit):
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
    async with calling(client, livekit.url) as livekit_api:
        with pytest.raises(Denied):
            await livekit_api.room.list_rooms(api.ListRoomsRequest())
    assert livekit.calls == []


async def test_redirect_to_another_server_gets_no_token(client, livekit):
    async with serving_livekit() as other, calling(client, livekit.url) as livekit_api:
        livekit.redirect = f"{other.url.replace('ws', 'http')}/twirp/livekit.RoomService/ListRooms"
        await livekit_api.room.list_rooms(api.ListRoomsRequest())
    assert livekit.calls == [f"Bearer {TOKEN}"]
    assert other.calls == [None]


async def test_job_without_an_api_role_has_no_api():
    context: Any = SimpleNamespace()
    seen = []

    async def job(ctx):
        seen.append(ctx.api)

    settings = Settings(role="w", api_role=None, project="", address=None, ca=None, cert=None, key=None)
    await Entrypoint(job, settings)(context)
    with pytest.raises(ConfigError, match="pass AgentServer an api_role"):
        seen[0].room  # noqa: B018 - it raises


async def test_redirect_loop_of_a_connection_shows_no_token(livekit, client):
    """Such errors of aiohttp contain the request headers, and their repr shows them."""
    tokens = WorkerTokens(client, TokenRequest(role="agent-worker"))
    livekit.agent_elsewhere = "/agent"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(_http.WorkerRefusedError) as refused:
            await _http.WorkerSession(session, tokens).ws_connect(f"{livekit.url}/agent", headers={})
    assert TOKEN not in repr(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


async def test_workers_token_is_not_sent_to_a_redirect_target(livekit, client):
    tokens = WorkerTokens(client, TokenRequest(role="agent-worker"))
    async with serving_livekit() as other, aiohttp.ClientSession() as session:
        livekit.agent_elsewhere = f"{other.url.replace('ws', 'http')}/agent"
        other.refusing = 401
        with pytest.raises(_http.WorkerRefusedError):
            await _http.WorkerSession(session, tokens).ws_connect(f"{livekit.url}/agent", headers={})
        assert other.authorizations in ([], [None])


async def test_redirect_loop_of_a_jobs_call_shows_no_token(client, livekit):
    livekit.redirect = "/twirp/livekit.RoomService/ListRooms"
    async with calling(client, livekit.url) as livekit_api:
        with pytest.raises(aiohttp.TooManyRedirects) as refused:
            await livekit_api.room.list_rooms(api.ListRoomsRequest())
    assert set(livekit.calls) == {f"Bearer {TOKEN}"}
    assert TOKEN not in repr(refused.value) + repr(vars(refused.value))


def a_job(url, room):
    return SimpleNamespace(job=SimpleNamespace(room=SimpleNamespace(name=room)), _info=SimpleNamespace(url=url))


async def run_job(settings, url, room, function):
    """A job as its process runs it, with its own session."""
    http_context._new_session_ctx()
    try:
        await Entrypoint(function, settings)(a_job(url, room))
    finally:
        await http_context._close_http_ctx()


async def list_rooms(ctx):
    await ctx.api.room.list_rooms(api.ListRoomsRequest())


async def test_jobs_of_a_process_share_one_connection(environment, service, livekit, monkeypatch):
    monkeypatch.setattr(Settings, "sync_client", lambda _: sync.AuthClient(timeout=60))  # the machine may be busy
    settings = Settings(role="w", api_role="agent-api", project="shared", address=None, ca=None, cert=None, key=None)
    rooms = [f"consult-{number}" for number in range(5)]
    await asyncio.gather(*(run_job(settings, livekit.url, room, list_rooms) for room in rooms))
    assert sorted(request.room for request in service.requests) == rooms
    assert len(livekit.calls) == len(rooms)
    assert len(service.connections) == 1


@pytest.fixture
def hung_agent(tmp_path, environment, monkeypatch):
    """A SPIFFE agent that accepts connections and sends nothing."""
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"LIVEKIT_AUTH_{name}")
    path = tmp_path / "agent.sock"
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


@contextlib.asynccontextmanager
async def stalls():
    """The longest time, in seconds, that the event loop was blocked."""
    longest = [0.0]

    async def watch():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest[0] = max(longest[0], time.monotonic() - before)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)  # start watching first
    try:
        yield longest
    finally:
        await asyncio.sleep(0.05)  # include the last block
        watching.cancel()


async def test_hung_spiffe_agent_does_not_block_a_jobs_event_loop(hung_agent, livekit):
    settings = Settings(role="w", api_role="agent-api", project="hung", address=None, ca=None, cert=None, key=None)
    began = time.monotonic()
    async with stalls() as longest:
        with pytest.raises(ConfigError, match="no SVID from the Workload API"):
            await run_job(settings, livekit.url, "consult-1", list_rooms)
        waited = time.monotonic() - began
    assert longest[0] < waited / 2, "the loop ran on while the call waited"


async def test_hung_spiffe_agent_does_not_block_the_workers_event_loop(hung_agent, server):
    began = time.monotonic()
    async with stalls() as longest:
        with pytest.raises(ConfigError, match="no SVID from the Workload API"):
            await server.run(devmode=True)
        waited = time.monotonic() - began
    assert longest[0] < waited / 2


@pytest.mark.parametrize(
    ("call", "grant", "power"),
    [
        ("RoomService/DeleteRoom", "video.room_create", "room_create"),
        ("RoomService/ListRooms", "video.room_list", "room_list"),
        ("RoomService/RemoveParticipant", "video.room_admin for that room", "room_admin"),
        ("RoomService/MoveParticipant", "video.room_admin and video.destination_room", "destination_room, room_admin"),
        ("AgentDispatchService/CreateDispatch", "video.room_admin for that room", "room_admin"),
        ("SIP/CreateSIPParticipant", "sip.call", "sip"),
        ("SIP/ListSIPInboundTrunk", "sip.admin", "sip"),
        ("Egress/StartEgress", "video.room_record", "room_record"),
        ("Ingress/CreateIngress", "video.ingress_admin", "ingress_admin"),
    ],
)
async def test_call_refused_by_livekit_names_the_grant_and_the_power(client, livekit, caplog, *, call, grant, power):
    livekit.refusing = 403
    source = TokenSource(client, TokenRequest(role="agent-api", room="lobby"))
    async with aiohttp.ClientSession() as session:
        calls = _http.ApiSession(session, source, role="agent-api")
        headers = {"Authorization": f"Bearer {_http.STAND_IN}"}
        url = f"{livekit.url.replace('ws', 'http', 1)}/twirp/livekit.{call}"
        async with calls.post(url, headers=headers) as answer:
            assert answer.status == 403
    assert f"LiveKit refused {call.replace('/', '.')} with HTTP status 403: it needs {grant}" in caplog.text
    assert f"check that role 'agent-api' has it, and that the policy entry has the powers [{power}]" in caplog.text
    assert TOKEN not in caplog.text


async def test_simulated_job_with_a_token_uses_the_livekit_url(server, livekit, monkeypatch):
    launched = []

    async def launch(job):
        launched.append(job)

    started = asyncio.Event()
    server.once("worker_started", started.set)
    running = asyncio.create_task(server.run(devmode=True, unregistered=True))
    try:
        await asyncio.wait_for(started.wait(), PATIENCE)
        monkeypatch.setattr(server._proc_pool, "launch_job", launch)
        token = api.AccessToken("APIkey", "s" * 32).with_identity("agent-1").to_jwt()
        await server.simulate_job("lobby", room_info=api.Room(name="lobby"), token=token)
    finally:
        await server.aclose()
        await running
    assert [(job.url, job.token, job.accept_arguments.identity) for job in launched] == [
        (livekit.url, token, "agent-1")
    ]
