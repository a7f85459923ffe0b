"""A listener for LiveKit's webhooks that keeps what arrives as it arrives: raw bytes and the Authorization header."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from e2e.processes import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 20  # seconds


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook as it came."""

    body: bytes = field(repr=False)
    authorization: str = field(repr=False)

    @property
    def event(self) -> str:
        """The event's name, read without any check."""
        return json.loads(self.body)["event"]

    @property
    def room(self) -> str:
        """The room's name, read without any check."""
        return json.loads(self.body).get("room", {}).get("name", "")


@dataclass(slots=True)
class WebhookListener:
    """Everything that has arrived, in order. Deliveries for the rooms in `failing` are answered with an error, once."""

    url: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def of(self, room: str, event: str | None = None) -> list[Delivery]:
        """What has arrived for a room, of one event or all."""
        return [d for d in self.deliveries if d.room == room and event in (None, d.event)]

    async def wait_for(self, room: str, event: str, times: int = 1) -> Delivery:
        """The delivery of this event for this room, or the last of several. Raises AssertionError."""
        async with self._arrived:
            try:
                enough = self._arrived.wait_for(lambda: len(self.of(room, event)) >= times)
                await asyncio.wait_for(enough, PATIENCE)
            except TimeoutError:
                came = [d.event for d in self.of(room)]
                raise AssertionError(f"no {event} ({times} times) for {room} in {PATIENCE} s; came: {came}") from None
            return self.of(room, event)[times - 1]

    async def _receive(self, request: web.Request) -> web.Response:
        delivery = Delivery(await request.read(), request.headers.get("Authorization", ""))
        async with self._arrived:
            self.deliveries.append(delivery)
            self._arrived.notify_all()
        if delivery.room in self.failing:
            self.failing.remove(delivery.room)
            return web.Response(status=503)
        return web.Response()


@asynccontextmanager
async def webhook_listener() -> AsyncIterator[WebhookListener]:
    """Listens on a loopback port of its own until the block ends."""
    listener = WebhookListener()
    application = web.Application()
    application.router.add_post("/livekit/webhook", listener._receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, LOOPBACK, 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        listener.url = f"http://{host}:{port}/livekit/webhook"
        yield listener
    finally:
        await runner.cleanup()
