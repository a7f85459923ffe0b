"""The listener's bound on strangers: few connections that haven't shown the made-up key, and none of them for long.

Any process on the machine can connect. Those without the key share a few places among themselves; when these are taken
the longest-waiting connection is closed, so that the worker, which shows its key at once, always gets in.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import asyncio

MAX_STRANGERS = 128
"""Connections that haven't shown the key, at most."""
BACKLOG = 16
"""Connections that asyncio accepts at once: each is read before so many more come that it would be closed for them."""
PROOF_SECONDS = 5.0
"""How long a connection has to show it."""


class Door(web.Server):
    """aiohttp's server, with bounds on connections that haven't shown the key."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """As web.Server."""
        super().__init__(*arguments, **options)
        self._strangers: OrderedDict[web.RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = OrderedDict()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by aiohttp for each connection."""
        super().connection_made(handler, transport)
        self._strangers[handler] = (transport, self._loop.call_later(PROOF_SECONDS, transport.abort))
        if len(self._strangers) > MAX_STRANGERS:
            longest_waiting, (its_transport, _) = next(iter(self._strangers.items()))
            self._forget(longest_waiting)
            its_transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by aiohttp at each connection's end."""
        self._forget(handler)
        super().connection_lost(handler, exc)

    def admit(self, request: web.BaseRequest) -> None:
        """Takes the connection of a request that has shown the key out of the strangers."""
        self._forget(request.protocol)

    def _forget(self, handler: web.RequestHandler) -> None:
        if handler in self._strangers:
            self._strangers.pop(handler)[1].cancel()
