"""The proxy for workers of any language: what it forwards, and what it refuses."""

import asyncio
import contextlib
import io
import json
import os
import signal
import stat
import sys
import time
import zlib
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from google.protobuf import json_format
from livekit.protocol.agent import JobAssignment, ServerMessage, WorkerMessage
from livekit.protocol.models import Room

from livekit_auth import AuthClient, ConfigError, Denied
from livekit_auth.agent_proxy import _limited_server, _worker_protocol
from livekit_auth.agent_proxy._proxy import MAX_BODY_BYTES, MAX_ROOMS, Proxy, Rules, serving
from livekit_auth.agent_proxy._run import run
from support.fake_auth_server import TOKEN, refusal
from support.http_server import listening

pytestmark = pytest.mark.slow

LIST = "livekit.RoomService/ListParticipants"
RULES = Rules(role="agent-worker", api_role="agent-api", allowed_api=frozenset({LIST}))
PATIENCE = 10  # seconds
UNUSED: Any = None


class LiveKit:
    """A fake LiveKit server. `answer` is the status of a failed handshake, `ending` how it closes the connection."""

    def __init__(self):
        self.seen = []
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.to_say = []
        self.answer = None
        self.elsewhere = None
        self.ending = None
        self.ended: asyncio.Queue[int | None] = asyncio.Queue()
        self.address = ""

    async def handle(self, request):
        self.seen.append((request.method, request.raw_path, request.headers.get("Authorization")))
        if self.elsewhere:
            return web.Response(status=307, headers={"Location": self.elsewhere})
        if self.answer:
            return web.Response(status=self.answer)
        if request.method == "POST":
            return web.Response(body=await request.read(), content_type=request.content_type)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for frame in self.to_say:
            await socket.send_bytes(frame)
        if self.ending == "broken":
            request.transport.abort()
        elif self.ending:
            await socket.close(code=self.ending[0], message=self.ending[1])
        async for frame in socket:
            self.frames.put_nowait(frame.data)
        self.ended.put_nowait(socket.close_code)
        return socket


@contextlib.asynccontextmanager
async def serving_livekit():
    livekit = LiveKit()
    async with listening(web.Server(livekit.handle, access_log=None)) as livekit.address:
        yield livekit


@pytest.fixture
async def livekit():
    async with serving_livekit() as livekit:
        yield livekit


@pytest.fixture
async def proxy(client, livekit):
    async with serving(client, RULES, f"ws://{livekit.address}") as proxy:
        yield proxy


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        yield session


def token(proxy, *, secret=None, algorithm="HS256", **changes):
    """A token that the worker signs with its made-up key. A change to None removes a claim."""
    claims = {"iss": proxy.key.id, "exp": int(time.time()) + 60, "video": {"agent": True, "room": "lobby"}, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, proxy.key.secret if secret is None else secret, algorithm=algorithm)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


async def handshake(http, proxy, path="/agent", headers=None):
    """The status of a handshake, 101 if it succeeds."""
    try:
        async with http.ws_connect(f"{proxy.url}{path}", headers=headers or bearer(token(proxy))):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def call(http, proxy, path=f"/twirp/{LIST}", **options):
    """The status of a call to LiveKit's API. The path is sent unchanged."""
    options = {"headers": bearer(token(proxy)), "data": b"body", **options}
    options["headers"] = {"Content-Type": "application/protobuf", **options["headers"]}
    from yarl import URL  # noqa: PLC0415 - a dependency of aiohttp

    url = URL(f"http://{proxy.address}{path}", encoded=True)
    async with http.post(url, allow_redirects=False, **options) as answer:
        return answer.status


async def test_workers_token_is_replaced_by_one_from_the_server(http, proxy, livekit, service):
    assert await handshake(http, proxy) == 101
    assert livekit.seen == [("GET", "/agent", f"Bearer {TOKEN}")]
    assert [request.role for request in service.requests] == ["agent-worker"]


async def test_binary_and_json_messages_are_forwarded_both_ways(http, proxy, livekit):
    livekit.to_say = [ServerMessage(assignment=JobAssignment(url="ws://node.example.org")).SerializeToString()]
    register = WorkerMessage()
    register.register.agent_name = "greeter"
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        assert ServerMessage.FromString(await worker.receive_bytes()).assignment.url == "ws://node.example.org"
        await worker.send_bytes(register.SerializeToString())
        await worker.send_str(json_format.MessageToJson(register))
        assert WorkerMessage.FromString(await livekit.frames.get()) == register
        assert json_format.Parse(await livekit.frames.get(), WorkerMessage()) == register


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        ((1000, b""), 1000, ""),
        ((1001, b"draining"), 1001, "draining"),
        ((1012, b""), 1012, ""),
        ((4401, b"token revoked"), 4401, "token revoked"),
        ("broken", 1014, ""),
    ],
)
async def test_livekits_close_code_is_forwarded_to_the_worker(http, proxy, livekit, *, ending, code, reason):
    livekit.ending = ending
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        closed = await worker.receive(PATIENCE)
    assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, code, reason)


async def test_workers_close_code_is_forwarded_to_livekit(http, proxy, livekit):
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        await worker.close(code=4000, message=b"done")
    async with asyncio.timeout(PATIENCE):
        assert await livekit.ended.get() == 4000


async def test_job_joins_at_the_projects_url_not_at_the_proxy(http, proxy, livekit):
    livekit.to_say = [ServerMessage(assignment=JobAssignment(token="job")).SerializeToString()]
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        assignment = ServerMessage.FromString(await worker.receive_bytes()).assignment
    assert (assignment.url, assignment.token) == (f"ws://{livekit.address}", "job")


async def test_recording_is_turned_off_with_one_warning(http, proxy, livekit, caplog):
    """The worker would sign its uploads with the made-up key."""
    offer, assigned = ServerMessage(), ServerMessage()
    for job in (offer.availability.job, assigned.assignment.job):
        job.id, job.enable_recording = "AJ_1", True
    livekit.to_say = [offer.SerializeToString(), assigned.SerializeToString()]
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        offered = ServerMessage.FromString(await worker.receive_bytes()).availability
        given = ServerMessage.FromString(await worker.receive_bytes()).assignment
    assert (offered.job.id, offered.job.enable_recording) == ("AJ_1", False)
    assert (given.job.id, given.job.enable_recording, given.url) == ("AJ_1", False, f"ws://{livekit.address}")
    assert caplog.text.count("run without recording") == 1


@pytest.mark.parametrize("as_json", [False, True])
async def test_simulated_job_is_dropped(http, proxy, livekit, as_json):
    simulate = WorkerMessage()
    simulate.simulate_job.room.CopyFrom(Room(name="board-1"))
    ping = WorkerMessage()
    ping.ping.timestamp = 1
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        if as_json:
            await worker.send_str(json_format.MessageToJson(simulate))
        else:
            await worker.send_bytes(simulate.SerializeToString())
        await worker.send_bytes(ping.SerializeToString())
        assert WorkerMessage.FromString(await livekit.frames.get()) == ping


async def test_simulated_job_hidden_in_another_message_is_dropped(http, proxy, livekit):
    """Protobuf uses the last of several; the forwarded message has only one, whatever a reader uses."""
    simulate, ping = WorkerMessage(), WorkerMessage()
    simulate.simulate_job.room.name = "board-1"
    ping.ping.timestamp = 1
    unknown = b"\xfa\x3f\x03abc"  # field 1023
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        await worker.send_bytes(simulate.SerializeToString() + ping.SerializeToString() + unknown)
        assert await livekit.frames.get() == ping.SerializeToString()


async def test_simulated_job_is_forwarded_if_allowed(http, client, livekit):
    simulate = WorkerMessage()
    simulate.simulate_job.room.name = "lobby"
    async with (
        serving(client, Rules(role="w", simulation=True), f"ws://{livekit.address}") as proxy,
        http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker,
    ):
        await worker.send_bytes(simulate.SerializeToString())
        assert WorkerMessage.FromString(await livekit.frames.get()) == simulate


@pytest.mark.parametrize("frame", [b"\xff\xff", "no json", "[" * 5000, bytes(MAX_BODY_BYTES + 1)])
async def test_invalid_frame_closes_the_workers_connection(http, proxy, livekit, frame):
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        await (worker.send_bytes(frame) if isinstance(frame, bytes) else worker.send_str(frame))
        closed = await worker.receive(PATIENCE)
    assert closed.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}
    assert livekit.frames.empty()


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda _: {}, id="no token"),
        pytest.param(lambda p: bearer(token(p, secret="x" * 43)), id="another secret"),
        pytest.param(lambda p: bearer(token(p, secret="", algorithm="none")), id="alg none"),
        pytest.param(lambda p: bearer(token(p, secret=p.key.secret + "x" * 32, algorithm="HS512")), id="another alg"),
        pytest.param(lambda p: bearer(_hs512(p)), id="our secret, another alg"),
        pytest.param(lambda p: bearer(token(p, exp=int(time.time()) - 5)), id="expired"),
        pytest.param(lambda p: bearer(token(p, exp=None)), id="never expires"),
        pytest.param(lambda p: bearer(token(p, nbf=int(time.time()) + 60)), id="not yet valid"),
        pytest.param(lambda p: bearer(token(p, iss="APIother")), id="another key"),
        pytest.param(lambda p: bearer(token(p, iss=None)), id="no key"),
        pytest.param(lambda p: {"Authorization": token(p)}, id="no scheme"),
        pytest.param(lambda p: bearer(token(p) + "x"), id="signature cut open"),
        pytest.param(lambda p: bearer(token(p, pad="x" * 7000 * 3)), id="too long"),
        pytest.param(lambda _: bearer("é.é.é".encode().decode("latin-1")), id="not ASCII"),
        pytest.param(lambda p: bearer(token(p, video={"agent": "yes"})), id="not an agent's"),
        pytest.param(lambda p: bearer(token(p, video=None)), id="no grants"),
        pytest.param(lambda p: bearer(token(p, video=["agent"])), id="odd grants"),
    ],
)
async def test_client_without_the_key_is_refused(http, proxy, livekit, service, forge):
    assert await handshake(http, proxy, headers=forge(proxy) or {"X-None": "1"}) in {400, 401}
    assert (livekit.seen, service.requests) == ([], [])


def _hs512(proxy):
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the short secret
        return token(proxy, algorithm="HS512")


@pytest.mark.parametrize("origin", ["http://127.0.0.1", "https://evil.example", "null", ""])
async def test_browser_page_is_refused_even_with_a_token(http, proxy, livekit, origin):
    headers = {**bearer(token(proxy)), "Origin": origin}
    assert await handshake(http, proxy, headers=headers) == 403
    assert await call(http, proxy, headers=headers) == 403
    assert livekit.seen == []


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "[::1]:80", ""])
async def test_dns_name_rebound_to_loopback_is_refused(http, proxy, livekit, host):
    headers = {**bearer(token(proxy)), "Host": host}
    assert await handshake(http, proxy, headers=headers) in {400, 403}
    assert await call(http, proxy, headers=headers) in {400, 403}
    assert livekit.seen == []


@pytest.mark.parametrize(
    "path",
    ["/", "/rtc", "/agent/", "//agent", "/%61gent", "/agent/../rtc", "/./agent", "/Agent", "/agent%00", "/twirp/agent"],
)
async def test_websocket_to_another_path_is_refused(http, proxy, livekit, path):
    from yarl import URL  # noqa: PLC0415

    url = URL(f"{proxy.url}{path}", encoded=True)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(url, headers=bearer(token(proxy)))
    assert refused.value.status == 404
    assert livekit.seen == []


async def test_query_string_is_not_forwarded(http, proxy, livekit):
    assert await handshake(http, proxy, "/agent?access_token=other&worker_token=x") == 101
    assert livekit.seen == [("GET", "/agent", f"Bearer {TOKEN}")]


async def test_allowed_call_has_a_token_of_the_api_role(http, proxy, livekit, service):
    assert await call(http, proxy) == 200
    assert livekit.seen == [("POST", f"/twirp/{LIST}", f"Bearer {TOKEN}")]
    assert [(request.role, request.room) for request in service.requests] == [("agent-api", "lobby")]


@pytest.mark.parametrize(
    "path",
    [
        "/twirp/livekit.RoomService/DeleteRoom",
        "/twirp/livekit.RoomService/ListParticipants/",
        "/twirp/livekit.RoomService/ListParticipants/../DeleteRoom",
        "/twirp/livekit.RoomService/%4cistParticipants",
        "/twirp//livekit.RoomService/ListParticipants",
        "/twirp/twirp/livekit.RoomService/ListParticipants",
        "/Twirp/livekit.RoomService/ListParticipants",
        "/livekit.RoomService/ListParticipants",
        "/x/twirp/livekit.RoomService/ListParticipants",
        "livekit.RoomService/ListParticipants?/twirp/",
        "/rtc/validate",
        "/agent",
    ],
)
async def test_any_other_call_is_refused(http, proxy, livekit, path):
    assert await call(http, proxy, path if path.startswith("/") else f"/{path}") == 404
    assert livekit.seen == []


async def test_no_call_is_allowed_by_default(http, client, livekit):
    async with serving(client, Rules(role="w"), f"ws://{livekit.address}") as proxy:
        assert await call(http, proxy) == 404
    assert livekit.seen == []


async def test_allowed_calls_without_a_role_are_refused(client):
    with pytest.raises(ConfigError, match="have no role"):
        async with serving(client, Rules(role="w", allowed_api=frozenset({LIST})), "ws://livekit.example.org"):
            pytest.fail("it serves")


@pytest.mark.parametrize("body_type", ["text/html", "multipart/form-data", "application/x-www-form-urlencoded"])
async def test_body_of_another_type_is_refused(http, proxy, livekit, body_type):
    assert await call(http, proxy, headers={**bearer(token(proxy)), "Content-Type": body_type}) == 415
    assert livekit.seen == []


async def test_too_large_body_is_refused(http, proxy, livekit):
    assert await call(http, proxy, data=io.BytesIO(bytes(MAX_BODY_BYTES + 1))) == 413
    assert livekit.seen == []


async def test_redirect_is_not_followed(http, proxy, livekit):
    async with serving_livekit() as other:
        livekit.elsewhere = f"http://{other.address}/agent"
        assert await handshake(http, proxy) == 502
        assert await call(http, proxy) == 502
        assert other.seen == []


async def test_refusal_by_the_policy_is_forwarded(http, proxy, livekit, service):
    service.script.extend([refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED")] * 2)
    assert await handshake(http, proxy) == 403
    assert await call(http, proxy) == 403
    assert livekit.seen == []


async def test_number_of_rooms_with_kept_tokens_is_bounded(http, proxy):
    for number in range(MAX_ROOMS + 5):
        assert await call(http, proxy, headers=bearer(token(proxy, video={"room": f"room-{number}"}))) == 200
    assert len(proxy._sources) == MAX_ROOMS


async def test_proxy_listens_on_loopback_only(proxy):
    assert proxy.address.startswith("127.0.0.1:")


async def test_no_secret_is_logged_or_shown(http, proxy, livekit, service, caplog):
    caplog.set_level("DEBUG")
    mine = token(proxy)
    livekit.answer = 401
    await handshake(http, proxy, headers=bearer(mine))
    livekit.answer = None
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
    await handshake(http, proxy, headers=bearer(mine))
    await handshake(http, proxy, headers=bearer(mine + "x"))
    shown = caplog.text + repr(proxy.key) + repr(vars(proxy))
    assert "HTTP status 401" in caplog.text
    assert all(secret not in shown for secret in (proxy.key.secret, mine, TOKEN))


@pytest.mark.parametrize("url", ["", "livekit.example.org", "file:///etc/passwd", "ws://"])
def test_url_that_is_not_a_livekit_servers_is_refused(url):
    with pytest.raises(ConfigError, match="isn't the URL of a LiveKit server"):
        Proxy(UNUSED, Rules(role="w"), url, UNUSED)


def child(code):
    return [sys.executable, "-c", code]


SHOW = (
    "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n.startswith('LIVEKIT')}), flush=True)"
)


@pytest.fixture
def auth(address, files, environment, monkeypatch):
    monkeypatch.delenv("LIVEKIT_API_SECRET", raising=False)
    return AuthClient(address, **files)


async def test_worker_gets_a_made_up_key_and_no_settings_of_the_client(auth, capfd):
    assert await run(auth, RULES, child(SHOW)) == 0
    given = json.loads(capfd.readouterr().out)
    assert sorted(given) == ["LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_URL"]
    assert given["LIVEKIT_URL"].startswith("ws://127.0.0.1:")
    assert len(given["LIVEKIT_API_SECRET"]) >= 43


async def test_worker_reads_its_key_from_its_credentials_file(auth, tmp_path, capfd):
    path = tmp_path / "credentials"
    read = f"import os; print(oct(os.stat({str(path)!r}).st_mode)); print(open({str(path)!r}).read()); {SHOW}"
    assert await run(auth, RULES, child(read), path) == 0
    mode, url, key, secret, _, environment = capfd.readouterr().out.splitlines()
    assert stat.S_IMODE(int(mode, 8)) == 0o600
    assert [line.partition("=")[0] for line in (url, key, secret)] == [
        "LIVEKIT_URL",
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_SECRET",
    ]
    assert environment == "{}"
    assert not path.exists()


async def test_link_instead_of_the_credentials_file_is_left_alone(auth, tmp_path):
    path = tmp_path / "credentials"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a separate file, not a link"):
        await run(auth, RULES, child(SHOW), path)
    assert not (tmp_path / "elsewhere").exists()


async def test_workers_exit_code_is_returned(auth):
    assert await run(auth, RULES, child("raise SystemExit(7)")) == 7


async def test_signals_are_forwarded_and_show_in_the_exit_code(auth, tmp_path):
    ready = tmp_path / "ready"
    code = f"import signal, time; open({str(ready)!r}, 'w').close(); time.sleep(60)"
    running = asyncio.create_task(run(auth, RULES, child(code)))
    async with asyncio.timeout(PATIENCE):
        while not ready.exists():  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 128 + signal.SIGTERM


async def test_command_that_cannot_be_run_is_reported(auth):
    with pytest.raises(ConfigError, match="can't run no-such-command"):
        await run(auth, RULES, ["no-such-command"])


async def test_real_secret_in_the_environment_is_refused(auth, monkeypatch):
    monkeypatch.setenv("LIVEKIT_API_SECRET", "hush-hush")
    with pytest.raises(ConfigError, match="LIVEKIT_API_SECRET is set") as refused:
        await run(auth, RULES, child(SHOW))
    assert "hush" not in str(refused.value)


async def test_worker_that_the_policy_refuses_is_not_started(auth, service, tmp_path):
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"))
    with pytest.raises(Denied):
        await run(auth, RULES, child(f"open({str(tmp_path / 'started')!r}, 'w')"))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("method", ["ListParticipants", "/twirp/a/b", "a/b/c", "livekit.RoomService/", "a/b?c", "*"])
async def test_invalid_method_is_refused_on_the_command_line(environment, method):
    command = [sys.executable, "-m", "livekit_auth.cli", "agent-proxy", "--allow-api", method, "--", "true"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"livekit.RoomService/ListParticipants" in told


async def test_command_exits_with_the_workers_code(environment):
    command = [sys.executable, "-m", "livekit_auth.cli", "agent-proxy", "--", *child("raise SystemExit(7)")]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 7


async def raw(proxy, data, seconds=1.0):
    """What the proxy sends in response to raw bytes, until it closes or the time is over."""
    host, _, port = proxy.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(65536):
                answer += chunk
    writer.close()
    return answer


def request(proxy, line, *headers, body=b"", host=None):
    lines = [line, f"Host: {host or proxy.address}", f"Authorization: Bearer {token(proxy)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize(
    "line",
    [
        "GET http://evil.example/agent HTTP/1.1",
        "GET //agent HTTP/1.1",
        "GET /agent#x HTTP/1.1",
        "GET /agent;x HTTP/1.1",
        "GET /agent\\x HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "POST /agent HTTP/1.1",
        "OPTIONS /agent HTTP/1.1",
        "HEAD /agent HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "PRI * HTTP/2.0",
    ],
)
async def test_odd_request_lines_are_refused(proxy, livekit, line):
    answer = await raw(proxy, request(proxy, line, *UPGRADE))
    assert not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 2"))
    assert b"access-control" not in answer.lower()
    assert livekit.seen == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
        (["Content-Length: 4", "Content-Length: 40"], b"body"),
        (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
        (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
        (["Content-Length: +4"], b"body"),
        (["Transfer-Encoding : chunked"], b"0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"4;a\nx\r\nbody\r\n0\r\n\r\n"),
    ],
)
async def test_smuggled_request_is_refused(proxy, livekit, headers, body):
    """A second request without a token, hidden where two parsers see different ends of the first."""
    hidden = f"POST /twirp/{LIST} HTTP/1.1\r\nHost: {proxy.address}\r\nContent-Length: 0\r\n\r\n".encode()
    line = f"POST /twirp/{LIST} HTTP/1.1"
    answer = await raw(proxy, request(proxy, line, "Content-Type: application/json", *headers, body=body + hidden))
    assert len(livekit.seen) <= 1
    assert answer.count(b"HTTP/1.1 200") <= 1
    assert all(seen[1] == f"/twirp/{LIST}" for seen in livekit.seen)


async def test_duplicate_host_or_origin_is_refused(proxy, livekit):
    for extra in ("Host: evil.example", f"Host: {proxy.address}", "origin: https://evil.example", "ORIGIN:"):
        answer = await raw(proxy, request(proxy, "GET /agent HTTP/1.1", *UPGRADE, extra))
        assert answer.split(b" ")[1] in {b"400", b"403"}
    assert livekit.seen == []


async def test_invalid_headers_leave_no_token_in_the_log(proxy, livekit, caplog):
    caplog.set_level("DEBUG")
    mine = token(proxy)
    for value in (f"Bearer {mine}\x00", f"Bearer {mine}" + "x" * 20000, f"Bearer {mine}\r\n bad\x01: x"):
        lines = ["GET /agent HTTP/1.1", f"Host: {proxy.address}", *UPGRADE, f"Authorization: {value}", "", ""]
        answer = await raw(proxy, "\r\n".join(lines).encode())
        assert not answer.startswith(b"HTTP/1.1 101")
    assert livekit.seen == []
    assert mine.rpartition(".")[2] not in caplog.text


async def test_decompression_bomb_in_a_body_is_refused(http, proxy, livekit):
    bomb = zlib.compress(bytes(64 * MAX_BODY_BYTES), 9)
    headers = {**bearer(token(proxy)), "Content-Encoding": "deflate"}
    assert await call(http, proxy, data=bomb, headers=headers) in {400, 413}
    assert livekit.seen == []


async def test_decompression_bomb_in_a_frame_closes_the_connection(http, proxy, livekit):
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy)), compress=15) as worker:
        await worker.send_bytes(bytes(16 * MAX_BODY_BYTES))
        closed = await worker.receive(PATIENCE)
    assert closed.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}
    assert livekit.frames.empty()


@pytest.mark.parametrize("compress", [0, 15])
async def test_fragmented_simulated_job_is_dropped(http, proxy, livekit, compress):
    simulate, ping = WorkerMessage(), WorkerMessage()
    simulate.simulate_job.room.name = "board-1"
    ping.ping.timestamp = 1
    whole = simulate.SerializeToString()
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy)), compress=compress) as worker:
        transport = worker._conn.transport
        for head, part in ((b"\x02", whole[:3]), (b"\x80", whole[3:])):  # a first fragment, and the rest
            transport.write(head + bytes([0x80 | len(part)]) + bytes(4) + part)
        await worker.send_bytes(ping.SerializeToString())
        assert WorkerMessage.FromString(await livekit.frames.get()) == ping


@pytest.mark.parametrize("text", ["[]", '""', "5", "null", '{"simulateJob": null}', '{"simulate_job": {}}', "{}"])
async def test_odd_json_is_never_forwarded(http, proxy, livekit, text):
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        await worker.send_str(text)
        await worker.close()
    assert livekit.frames.empty()


async def test_workers_that_stopped_waiting_take_no_tokens(http, proxy, livekit, service):
    """While the server is unavailable a worker keeps retrying. Each abandoned attempt must end here too."""
    service.script.extend([refusal("UNAVAILABLE")] * 40)
    for _ in range(5):
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(0.1):
                await http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy)))
    service.script.clear()
    async with asyncio.timeout(5):
        assert await handshake(http, proxy) == 101
    await asyncio.sleep(3)
    assert len(livekit.seen) == 1


@pytest.mark.parametrize("variable", ["LIVEKIT_INFERENCE_API_SECRET", "LIVEKIT_KEYS"])
async def test_other_livekit_secret_in_the_environment_is_refused(auth, monkeypatch, variable):
    monkeypatch.setenv(variable, "hush-hush")
    with pytest.raises(ConfigError, match=f"{variable} is set") as refused:
        await run(auth, RULES, child(SHOW))
    assert "hush" not in str(refused.value)


async def test_credentials_file_removes_other_livekit_variables(auth, tmp_path, monkeypatch, capfd):
    """A worker prefers its environment to the file, and would bypass the proxy."""
    monkeypatch.setenv("LIVEKIT_URL", "wss://livekit.example.org")
    monkeypatch.setenv("LIVEKIT_API_KEY", "APIreal")
    assert await run(auth, RULES, child(SHOW), tmp_path / "credentials") == 0
    assert capfd.readouterr().out.strip() == "{}"


@pytest.mark.parametrize("way", ["from_worker", "from_livekit"])
async def test_internal_error_closes_the_connection_and_is_logged(http, proxy, livekit, *, monkeypatch, caplog, way):
    def faulty(*_, **__):
        raise KeyError("what mustn't show")

    monkeypatch.setattr(_worker_protocol, way, faulty)
    livekit.to_say = [ServerMessage().SerializeToString()]
    async with http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker:
        await worker.send_bytes(b"")
        while (await worker.receive(PATIENCE)).type is aiohttp.WSMsgType.BINARY:
            pass
    assert "Internal error of the proxy ended a connection: KeyError" in caplog.text
    assert "mustn't show" not in caplog.text


async def test_broken_connection_is_not_logged_as_an_error(http, proxy, livekit, caplog):
    worker = await http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy)))
    worker._conn.transport.abort()
    async with asyncio.timeout(PATIENCE):
        while proxy._session.connector._acquired:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(0.01)
    assert caplog.text == ""


async def test_ctrl_c_at_a_terminal_reaches_the_worker_once(environment, tmp_path):
    """The terminal signals the worker too, and a second signal makes it drop its jobs."""
    told, ready = tmp_path / "told", tmp_path / "ready"
    worker = (
        f"import signal, time; told = open({str(told)!r}, 'a')\n"
        "signal.signal(signal.SIGINT, lambda *_: (told.write('x'), told.flush()))\n"
        f"open({str(ready)!r}, 'w').close(); end = time.monotonic() + 30\n"
        f"while not told.tell() and time.monotonic() < end: time.sleep(0.05)\n"
        "time.sleep(0.5)"
    )
    # The program, slowed down: two signals in quick succession are merged into one.
    slowly = (
        "import runpy, sys, time; from livekit_auth.agent_proxy import _run; forward = _run._forward\n"
        "_run._forward = lambda *signalled: (time.sleep(0.2), forward(*signalled))\n"
        f"sys.argv = {['livekit-auth', 'agent-proxy', '--', *child(worker)]!r}\n"
        "runpy.run_module('livekit_auth.cli', run_name='__main__')"
    )
    at_a_terminal = f"import pty, sys; sys.exit(pty.spawn({child(slowly)!r}) >> 8)"
    process = await asyncio.create_subprocess_exec(
        *child(at_a_terminal), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(3 * PATIENCE):
        while not ready.exists():  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.02)
        assert process.stdin is not None
        process.stdin.write(b"\x03")
        await process.stdin.drain()
        assert await process.wait() == 0
    assert told.read_text() == "x"


@contextlib.asynccontextmanager
async def strangers(proxy, *said):
    """Opens connections that send something and then wait."""
    host, _, port = proxy.address.partition(":")
    opened = []
    try:
        for words in said:
            opened.append(await asyncio.open_connection(host, int(port)))
            opened[-1][1].write(words)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def hung_up(reader):
    with contextlib.suppress(ConnectionResetError):
        return not await reader.read()
    return True


async def test_worker_connects_despite_many_unauthenticated_connections(http, proxy, livekit):
    said = [b"GET /agent HTTP/1.1\r\nX-Half: a"] * (_limited_server.MAX_UNAUTHENTICATED + 20)
    async with strangers(proxy, *said) as readers, asyncio.timeout(PATIENCE):
        assert all([await hung_up(reader) for reader in readers[:20]])
        assert await handshake(http, proxy) == 101


async def test_unauthenticated_connection_is_closed_after_a_time(http, client, livekit, monkeypatch):
    monkeypatch.setattr(_limited_server, "AUTHENTICATION_SECONDS", 0.2)
    register = WorkerMessage()
    register.register.agent_name = "greeter"
    async with (
        serving(client, RULES, f"ws://{livekit.address}") as proxy,
        http.ws_connect(f"{proxy.url}/agent", headers=bearer(token(proxy))) as worker,
        strangers(proxy, b"", b"POST /twirp/x HTTP/1.1\r\nHost: ") as readers,
        asyncio.timeout(PATIENCE),
    ):
        assert all([await hung_up(reader) for reader in readers])
        await worker.send_bytes(register.SerializeToString())
        assert await livekit.frames.get() == register.SerializeToString(), "the worker has shown the key"


@pytest.mark.parametrize("forged", ["Bearer x.y.z", ""])
async def test_request_without_the_key_closes_its_connection(proxy, forged):
    lines = ["GET /agent HTTP/1.1", f"Host: {proxy.address}", f"Authorization: {forged}", "", ""]
    answer = await raw(proxy, "\r\n".join(lines).encode(), PATIENCE)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_livekit_is_reached_through_the_environments_proxy(http, client, livekit, no_proxies, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hush@{livekit.address}")
    async with serving(client, RULES, "ws://livekit.example.org:7880") as proxy:
        assert await handshake(http, proxy) == 101
        assert await call(http, proxy) == 200
    assert [path for _, path, _ in livekit.seen] == [
        "http://livekit.example.org:7880/agent",
        f"http://livekit.example.org:7880/twirp/{LIST}",
    ]


async def test_livekit_over_tls_is_reached_through_a_tunnel(http, client, no_proxies, monkeypatch):
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def tunnel(reader, writer):
        asked.put_nowait(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", "http://{}:{}".format(*server.sockets[0].getsockname()[:2]))
    async with server, serving(client, RULES, "wss://livekit.example.org") as proxy:
        assert await handshake(http, proxy) == 502
    async with asyncio.timeout(PATIENCE):
        assert await asked.get() == b"CONNECT livekit.example.org:443 HTTP/1.1\r\n"


@pytest.mark.parametrize("exempt", ["example.org", "livekit.example.org:7880", "*"])
async def test_no_proxy_variable_is_respected(http, client, livekit, *, no_proxies, monkeypatch, exempt):
    monkeypatch.setenv("HTTP_PROXY", f"http://{livekit.address}")
    monkeypatch.setenv("NO_PROXY", exempt)
    async with serving(client, RULES, "ws://livekit.example.org:7880") as proxy:
        assert proxy._outbound_proxy is None


async def test_livekit_on_loopback_is_never_reached_through_a_proxy(http, client, livekit, no_proxies, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(client, RULES, f"ws://{livekit.address}") as proxy:
        assert await handshake(http, proxy) == 101


async def test_unusable_proxy_is_refused_without_showing_its_password(client, no_proxies, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://user:hush@proxy.example.org")
    with pytest.raises(ConfigError, match="a 'socks5' proxy") as refused:
        Proxy(client, RULES, "wss://livekit.example.org", UNUSED)
    assert "hush" not in str(refused.value)


async def test_refusal_by_livekits_api_names_the_grant_and_the_power(http, client, livekit, caplog):
    delete = "livekit.RoomService/DeleteRoom"
    rules = Rules(role="w", api_role="agent-api", allowed_api=frozenset({delete}))
    livekit.answer = 403
    async with serving(client, rules, f"ws://{livekit.address}") as proxy:
        assert await call(http, proxy, f"/twirp/{delete}") == 403
    assert "RoomService.DeleteRoom with HTTP status 403: it needs video.room_create" in caplog.text
    assert "'agent-api'" in caplog.text
    assert "[room_create]" in caplog.text
