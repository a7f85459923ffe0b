"""LiveKit's signalling and worker protocols, spoken directly: what the server answers, without a client in between."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

import aiohttp
from livekit.protocol.agent import (
    AvailabilityResponse,
    JobType,
    RegisterWorkerRequest,
    ServerMessage,
    SimulateJobRequest,
    WorkerMessage,
)
from livekit.protocol.models import Room, TrackSource, TrackType
from livekit.protocol.rtc import (
    AddTrackRequest,
    RequestResponse,
    SignalRequest,
    SignalResponse,
    UpdateParticipantMetadata,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from e2e.secrecy import Bearer

PATIENCE = 15  # seconds
PROTOCOL = 15  # of the signalling

M = TypeVar("M", bound="Message")


class HandshakeRefusedError(Exception):
    """The server refused the connection; `status` is the HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Signalling:
    """A participant's signal connection, without any media."""

    _socket: aiohttp.ClientWebSocketResponse

    async def receive(self, *kinds: str) -> SignalResponse:
        """The next message of one of these kinds."""
        return await _receive(self._socket, SignalResponse(), *kinds)

    async def may_publish(self, source: TrackSource) -> bool:
        """Whether the server accepts a track. It says nothing to one that it refuses, and answers in order."""
        track = AddTrackRequest(cid="track", name="track", type=TrackType.AUDIO, source=source)
        await self._send(SignalRequest(add_track=track))
        await self._send(SignalRequest(update_metadata=UpdateParticipantMetadata(request_id=1)))
        answer = await self.receive("track_published", "request_response")
        return answer.WhichOneof("message") == "track_published"

    async def may_update_metadata(self) -> bool:
        """Whether the server lets the participant change its own metadata."""
        await self._send(SignalRequest(update_metadata=UpdateParticipantMetadata(request_id=1, metadata="changed")))
        answer = await self.receive("request_response")
        return answer.request_response.reason == RequestResponse.Reason.OK

    async def _send(self, request: SignalRequest) -> None:
        await self._socket.send_bytes(request.SerializeToString())


@dataclass(frozen=True, slots=True)
class Worker:
    """An agent worker's connection."""

    _socket: aiohttp.ClientWebSocketResponse

    async def register(self, agent_name: str) -> ServerMessage:
        """Registers for rooms; returns the server's answer."""
        request = RegisterWorkerRequest(type=JobType.JT_ROOM, agent_name=agent_name, version="1", ping_interval=60)
        await self._send(WorkerMessage(register=request))
        return await self.receive("register")

    async def simulate_job(self, room: str) -> str:
        """Has the server assign a job in a room that this worker names; returns the job's token."""
        await self._send(WorkerMessage(simulate_job=SimulateJobRequest(type=JobType.JT_ROOM, room=Room(name=room))))
        job = (await self.receive("availability")).availability.job
        answer = AvailabilityResponse(job_id=job.id, available=True, participant_identity="worker")
        await self._send(WorkerMessage(availability=answer))
        return (await self.receive("assignment")).assignment.token

    async def receive(self, kind: str) -> ServerMessage:
        """The next message of a kind."""
        return await _receive(self._socket, ServerMessage(), kind)

    async def _send(self, message: WorkerMessage) -> None:
        await self._socket.send_bytes(message.SerializeToString())


@asynccontextmanager
async def signalling(token: Bearer, room: str = "") -> AsyncIterator[Signalling]:
    """Connects as a participant, asking for a room, until the block ends. Raises HandshakeRefusedError."""
    query = urlencode({"protocol": PROTOCOL, "auto_subscribe": 1, "room": room})
    async with _connected(f"{token.url}/rtc?{query}", token) as socket:
        yield Signalling(socket)


@asynccontextmanager
async def worker(token: Bearer) -> AsyncIterator[Worker]:
    """Connects as an agent worker until the block ends. Raises HandshakeRefusedError."""
    async with _connected(f"{token.url}/agent?protocol=1", token) as socket:
        yield Worker(socket)


@asynccontextmanager
async def _connected(url: str, token: Bearer) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token.token}"}) as session:
        try:
            socket = await session.ws_connect(url)
        except aiohttp.WSServerHandshakeError as error:
            raise HandshakeRefusedError(error.status) from None  # its text has the request's headers
        async with socket:
            yield socket


async def _receive(socket: aiohttp.ClientWebSocketResponse, message: M, *kinds: str) -> M:
    async with asyncio.timeout(PATIENCE):
        while True:
            message.ParseFromString(await socket.receive_bytes())
            if message.WhichOneof("message") in kinds:
                return message
