"""Bounds on connections that haven't authenticated: how many there are, and how long each may stay.

Any process on the machine can connect. Connections without the key share a few places; when these are taken, the
longest-waiting connection is closed. The worker, which authenticates at once, always gets in.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import asyncio

MAX_UNAUTHENTICATED = 128
"""The most connections that haven't authenticated."""
BACKLOG = 16
"""Connections that asyncio accepts at once: few enough that each is read before later ones could displace it."""
AUTHENTICATION_SECONDS = 5.0
"""How long a connection may take to authenticate."""


class LimitedServer(web.Server):
    """aiohttp's server with bounds on unauthenticated connections."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Takes the arguments of web.Server."""
        super().__init__(*arguments, **options)
        self._waiting: OrderedDict[web.RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = OrderedDict()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by aiohttp when a connection opens."""
        super().connection_made(handler, transport)
        self._waiting[handler] = (transport, self._loop.call_later(AUTHENTICATION_SECONDS, transport.abort))
        if len(self._waiting) > MAX_UNAUTHENTICATED:
            longest_waiting, (its_transport, _) = next(iter(self._waiting.items()))
            self._forget(longest_waiting)
            its_transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by aiohttp when a connection ends."""
        self._forget(handler)
        super().connection_lost(handler, exc)

    def admit(self, request: web.BaseRequest) -> None:
        """Lifts the bounds for the connection of an authenticated request."""
        self._forget(request.protocol)

    def _forget(self, handler: web.RequestHandler) -> None:
        if handler in self._waiting:
            self._waiting.pop(handler)[1].cancel()
