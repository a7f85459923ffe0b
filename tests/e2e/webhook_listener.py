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
    from collections.abc import AsyncIterator, Callable


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
    """Everything that has arrived, in order."""

    url: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for(self, event: str, room: str, timeout: float = 15) -> Delivery:  # noqa: ASYNC109 - with a message
        """The first delivery of this event for this room. Raises TimeoutError with what came instead."""

        def found() -> Delivery | None:
            return next((d for d in self.deliveries if d.event == event and d.room == room), None)

        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(lambda: found() is not None), timeout)
            except TimeoutError:
                came = [d.event for d in self.deliveries if d.room == room]
                raise TimeoutError(f"no {event} for {room} within {timeout} s; there were {came}") from None
        delivery = found()
        assert delivery is not None
        return delivery

    async def _receive(self, request: web.Request) -> web.Response:
        delivery = Delivery(await request.read(), request.headers.get("Authorization", ""))
        async with self._arrived:
            self.deliveries.append(delivery)
            self._arrived.notify_all()
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
