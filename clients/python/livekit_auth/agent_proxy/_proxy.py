"""The proxy: one listener on loopback, two kinds of requests; everything else is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from livekit_auth._async.token_source import Issuer, TokenSource
from livekit_auth._messages.errors import AuthError, ConfigError, Denied, Unauthenticated
from livekit_auth._messages.requests import TokenRequest
from livekit_auth._workers import required_grants
from livekit_auth._workers.tokens import WorkerTokens
from livekit_auth.agent_proxy import _worker_protocol
from livekit_auth.agent_proxy._limited_server import BACKLOG, LimitedServer
from livekit_auth.agent_proxy._local_key import LocalKey, NotOurTokenError
from livekit_auth.agent_proxy._outbound_proxy import proxy_for
from livekit_auth.agent_proxy._worker_protocol import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOPBACK = "127.0.0.1"
MAX_BODY_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
UPSTREAM_SECONDS = 30.0
CONNECT_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0
MAX_ROOMS = 64
"""The number of rooms whose tokens for API calls are kept."""
MESSAGES = frozenset({WSMsgType.BINARY, WSMsgType.TEXT})
BODY_TYPES = frozenset({"application/protobuf", "application/json"})

_log = logging.getLogger("livekit_auth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the worker is allowed."""

    role: str
    project: str = ""
    api_role: str | None = None
    allowed_api: frozenset[str] = frozenset()
    """Methods such as livekit.RoomService/ListParticipants, matched exactly."""
    simulation: bool = False


class Proxy:
    """Handles the worker's requests. `serving` runs it."""

    def __init__(self, client: Issuer, rules: Rules, url: str, session: aiohttp.ClientSession) -> None:
        """`url` is that of the project; the session is used only for it.

        Raises ConfigError for contradictory rules, and for an unusable proxy in the environment.
        """
        if rules.allowed_api and rules.api_role is None:
            raise ConfigError("API calls are allowed but have no role: add --api-role")
        parts = urlsplit(url)
        if parts.scheme not in {"ws", "wss", "http", "https"} or not parts.netloc:
            raise ConfigError(f"the project's url isn't the URL of a LiveKit server: {url!r}")
        secure = parts.scheme in {"wss", "https"}
        base = f"{parts.netloc}{parts.path.rstrip('/')}"
        self.key = LocalKey.new()
        self.address = ""
        self.server: LimitedServer | None = None
        self._client = client
        self._rules = rules
        self._url = f"{'wss' if secure else 'ws'}://{base}"
        self._http_url = f"{'https' if secure else 'http'}://{base}"
        self._outbound_proxy = proxy_for(self._http_url)
        self._session = session
        self._tokens = WorkerTokens(client, TokenRequest(role=rules.role, project=rules.project))
        self._told_of_recording = False
        self._sources: OrderedDict[str, TokenSource] = OrderedDict()

    @property
    def url(self) -> str:
        """The URL that the worker connects to."""
        return f"ws://{self.address}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Checks a request, and forwards it if it is one of the two kinds."""
        claims = self._claims(request)
        if isinstance(claims, web.Response):
            claims.force_close()
            return claims
        if self.server is not None:
            self.server.admit(request)
        path = request.raw_path.partition("?")[0]  # as sent: not decoded, not normalised
        if request.method == "GET" and path == "/agent":
            return await self._agent(request, _video(claims))
        if request.method == "POST" and path.removeprefix("/twirp/") in self._rules.allowed_api and "/twirp/" in path:
            return await self._call(request, path, str(_video(claims).get("room") or ""))
        return web.Response(status=404)

    def _claims(self, request: web.BaseRequest) -> dict[str, Any] | web.Response:
        """The claims of the request's token, or the refusal of a request that isn't the worker's."""
        # A browser always sends its Origin; a DNS name rebound to loopback shows in Host.
        if "Origin" in request.headers or request.headers.getall("Host", []) != [self.address]:
            return web.Response(status=403)
        try:
            return self.key.claims(request.headers.get("Authorization", ""))
        except NotOurTokenError:
            return web.Response(status=401)

    async def _agent(self, request: web.BaseRequest, video: dict[str, Any]) -> web.StreamResponse:
        if video.get("agent") is not True:
            return web.Response(status=401)
        worker = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_BODY_BYTES)
        if not worker.can_prepare(request).ok:
            return web.Response(status=400)
        try:
            livekit = await self._connect()
        except (AuthError, OSError, TimeoutError, aiohttp.ClientError, _RedirectedError) as error:
            return _failed(error)
        async with livekit:
            await worker.prepare(request)
            await self._relay(worker, livekit)
        return worker

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        token = await self._tokens.fresh()
        async with asyncio.timeout(CONNECT_SECONDS):
            return await self._session.ws_connect(
                f"{self._http_url}/agent",  # as proxies expect it
                headers={"Authorization": f"Bearer {token.token}"},
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MAX_ANSWER_BYTES,
                proxy=self._outbound_proxy,
            )

    async def _relay(self, worker: web.WebSocketResponse, livekit: aiohttp.ClientWebSocketResponse) -> None:
        """Forwards messages both ways until one side closes, then closes the other with the same code."""
        ways = [
            asyncio.create_task(self._upstream(worker, livekit)),
            asyncio.create_task(self._downstream(worker, livekit)),
        ]
        ending = Ending()
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for ended in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(ended, Ending):
                    ending = ended
                elif isinstance(ended, Exception) and not isinstance(ended, (OSError, aiohttp.ClientError)):
                    _log.error("Internal error of the proxy ended a connection: %s", type(ended).__name__)
            await worker.close(code=ending.code, message=ending.reason)
            await livekit.close(code=ending.code, message=ending.reason)

    async def _upstream(self, worker: web.WebSocketResponse, livekit: aiohttp.ClientWebSocketResponse) -> Ending:
        while (frame := await worker.receive()).type in MESSAGES:
            try:
                passed = _worker_protocol.from_worker(frame.type, frame.data, simulation=self._rules.simulation)
            except _worker_protocol.UnreadableError:
                _log.warning("Closing the worker's connection: not a message of the worker protocol")
                return Ending(WSCloseCode.PROTOCOL_ERROR)
            if passed is None:
                _log.warning("Dropped a message of the worker: a simulated job, or an unknown kind")
            else:
                await _send(livekit, passed)
        return Ending.of(frame, gone=WSCloseCode.GOING_AWAY)

    async def _downstream(self, worker: web.WebSocketResponse, livekit: aiohttp.ClientWebSocketResponse) -> Ending:
        while (frame := await livekit.receive()).type in MESSAGES:
            with contextlib.suppress(_worker_protocol.UnreadableError):
                await _send(worker, _worker_protocol.from_livekit(frame.type, frame.data, self._url, self._unrecorded))
        ending = Ending.of(frame, gone=WSCloseCode.BAD_GATEWAY)
        _log.info("The worker's connection to LiveKit closed with code %d", ending.code)
        return ending

    def _unrecorded(self) -> None:
        if not self._told_of_recording:
            self._told_of_recording = True
            _log.warning("Jobs run without recording: agent-proxy has no tokens for it")

    async def _call(self, request: web.BaseRequest, path: str, room: str) -> web.StreamResponse:
        if request.content_type not in BODY_TYPES:
            return web.Response(status=415)
        try:
            body = await request.read()
            token = await self._source(room).token()
            headers = {"Authorization": f"Bearer {token.token}", "Content-Type": request.content_type}
            url = f"{self._http_url}{path}"
            async with self._session.post(url, data=body, headers=headers, proxy=self._outbound_proxy) as answer:
                content = await answer.content.read(MAX_ANSWER_BYTES + 1)
                while len(content) <= MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                    content += more
                if len(content) > MAX_ANSWER_BYTES:
                    return web.Response(status=502)
                if answer.status in required_grants.REFUSED:
                    _log.warning(required_grants.refusal(path, answer.status, str(self._rules.api_role)))
                return web.Response(status=answer.status, body=content, content_type=answer.content_type)
        except (AuthError, OSError, TimeoutError, aiohttp.ClientError, _RedirectedError) as error:
            return _failed(error)

    def _source(self, room: str) -> TokenSource:
        """The tokens for calls about one room. Keeps those of the most recently used rooms."""
        if room not in self._sources:
            request = TokenRequest(role=self._rules.api_role, room=room, project=self._rules.project)
            self._sources[room] = TokenSource(self._client, request)
            if len(self._sources) > MAX_ROOMS:
                self._sources.popitem(last=False)
        self._sources.move_to_end(room)
        return self._sources[room]


@contextlib.asynccontextmanager
async def serving(client: Issuer, rules: Rules, url: str) -> AsyncIterator[Proxy]:
    """Serves on a free loopback port until the block ends. Raises ConfigError, OSError."""
    timeout = aiohttp.ClientTimeout(total=UPSTREAM_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(_no_redirects,)) as session:
        proxy = Proxy(client, rules, url, session)
        # Cancel the requests of a worker that stopped waiting: they would queue while the server is unavailable.
        proxy.server = LimitedServer(proxy.handle, handler_cancellation=True, access_log=None, logger=_http_log())
        runner = web.ServerRunner(proxy.server, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0, backlog=BACKLOG).start()
            proxy.address = "{}:{}".format(*runner.addresses[0][:2])
            yield proxy
        finally:
            await runner.cleanup()


class _RedirectedError(Exception):
    """LiveKit responded with a redirect. It isn't followed: the token is meant for one server."""


async def _no_redirects(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    answer = await handler(request)
    if 300 <= answer.status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
        answer.close()
        raise _RedirectedError
    return answer


def _http_log() -> logging.Logger:
    """The log of aiohttp's server. Adding the same filter again has no effect."""
    log = logging.getLogger("livekit_auth.agent_proxy")
    log.addFilter(_without_request)
    return log


def _without_request(record: logging.LogRecord) -> bool:
    """Removes the request, which may contain a token, from the log record of a malformed request. Keeps the record."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.args, record.exc_info = "Refused a request: not HTTP, or too large", (), None
    return True


async def _send(socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, data: _worker_protocol.Frame) -> None:
    await (socket.send_bytes(data) if isinstance(data, bytes) else socket.send_str(data))


def _video(claims: dict[str, Any]) -> dict[str, Any]:
    video = claims.get("video")
    return video if isinstance(video, dict) else {}


def _failed(error: Exception) -> web.Response:
    """The response when LiveKit or livekit-auth failed. Logs only errors whose text contains no headers."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        _log.warning("LiveKit refused the worker with HTTP status %d", error.status)
    elif isinstance(error, AuthError):
        _log.warning("No token for the worker: %s", error)
    else:
        _log.warning("Can't reach LiveKit, or it sent a redirect: %s", type(error).__name__.strip("_"))
    return web.Response(status=403 if isinstance(error, (Denied, Unauthenticated)) else 502)
