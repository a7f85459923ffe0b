"""What a worker talks to on LiveKit Cloud: jobs, observability and inference, each of which checks the token."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from livekit import api
from livekit.protocol.agent import ServerMessage, WorkerMessage

from support.fake_auth_server import FakeAuthService, issued
from support.http_server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY, SECRET = "APIcloud", "only-the-cloud-and-the-service-know-this-secret"
GRANTS = {
    "agent-worker": lambda token: token.with_grants(api.VideoGrants(agent=True)),
    "agent-inference": lambda token: token.with_inference_grants(api.InferenceGrants(perform=True)),
    "agent-observability": lambda token: token.with_observability_grants(api.ObservabilityGrants(write=True)),
}


class SigningAuthService(FakeAuthService):
    """Issues tokens that the cloud accepts, with the grants of three roles."""

    async def IssueToken(self, request, context):  # noqa: N802 - the contract's name
        await self._step(request, context)
        response = issued(request)
        token = api.AccessToken(KEY, SECRET).with_identity(request.identity or "nobody")
        response.token, response.url = GRANTS[request.role](token).to_jwt(), self.url
        return response

    def roles(self) -> list[str]:
        """Whose tokens were asked for, in order."""
        return [request.role for request in self.requests]


@dataclass
class Cloud:
    """Gives the first worker a job that is to be recorded. `accepted` and `refused` are paths with a token's grants."""

    url: str = ""
    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    registered: asyncio.Event = field(default_factory=asyncio.Event)
    recording: bool = True

    async def agent(self, request: web.Request) -> web.StreamResponse:
        """Registers a worker, offers it the job, and assigns it."""
        if not self._allowed(request, lambda claims: claims.video.agent):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_bytes()
        registered, offer = ServerMessage(), ServerMessage()
        registered.register.worker_id = "AW_1"
        await socket.send_bytes(registered.SerializeToString())
        self.registered.set()
        job = offer.availability.job
        job.id, job.agent_name, job.enable_recording = "AJ_1", "cloud", self.recording
        job.room.sid, job.room.name = "RM_1", "lobby"
        await socket.send_bytes(offer.SerializeToString())
        async for frame in socket:
            if WorkerMessage.FromString(frame.data).WhichOneof("message") == "availability":
                assigned = ServerMessage()
                assigned.assignment.job.CopyFrom(job)
                assigned.assignment.token = api.AccessToken(KEY, SECRET).with_identity("agent-1").to_jwt()
                await socket.send_bytes(assigned.SerializeToString())
        return socket

    async def observe(self, request: web.Request) -> web.Response:
        """Takes traces, logs, metrics and the report of a session."""
        await request.read()
        allowed = self._allowed(request, lambda claims: claims.observability and claims.observability.write)
        return web.Response(status=200 if allowed else 401)

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """Answers a chat with one word."""
        if not self._allowed(request, lambda claims: claims.inference and claims.inference.perform):
            return web.Response(status=401)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        chunk = {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        }
        await answer.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        return answer

    def _allowed(self, request: web.Request, may) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            allowed = may(api.TokenVerifier(KEY, SECRET).verify(token))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it
            self.refused.append((request.path, repr(error)))
            return False
        if allowed:
            self.accepted.append(request.path)
        else:
            self.refused.append((request.path, "not granted"))
        return bool(allowed)


@contextlib.asynccontextmanager
async def serving_cloud() -> AsyncIterator[Cloud]:
    """A cloud on a loopback port."""
    cloud = Cloud()
    application = web.Application(client_max_size=2**24)
    application.router.add_get("/agent", cloud.agent)
    application.router.add_post("/observability/{what:.*}", cloud.observe)
    application.router.add_post("/inference/chat/completions", cloud.infer)
    async with listening(application) as address:
        cloud.url = f"http://{address}"
        yield cloud
