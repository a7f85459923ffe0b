"""Starts and stops an HTTP server on a free loopback port."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def listening(server: web.Server | web.Application) -> AsyncIterator[str]:
    """Yields HOST:PORT. Open connections are closed when the block ends."""
    if isinstance(server, web.Application):
        runner: web.BaseRunner = web.AppRunner(server, access_log=None, shutdown_timeout=0.1)
    else:
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
