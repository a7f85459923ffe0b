"""`livekit-auth-server serve` with several workers: signals, probes and metrics around the pool."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.process import probe_listener
from livekit_auth_server.process.background import Background, every
from livekit_auth_server.process.operating_system import accept_signals
from livekit_auth_server.process.probe_listener import ProbeListener
from livekit_auth_server.supervisor.metrics import PoolMetrics
from livekit_auth_server.supervisor.pool import START, Pool
from livekit_auth_server.supervisor.port import hold
from livekit_auth_server.supervisor.worker_process import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.process.probe_listener import Page

_LAST_LINES = 0.5  # seconds that a slow reader of the log is given
_log = structlog.get_logger("livekit_auth_server")


async def supervise(settings: Settings, count: int, config: Path, stream: LineStream, *, as_json: bool) -> None:
    """Runs `count` workers until SIGTERM or SIGINT, then drains them. Raises ConfigError when they can't start."""
    try:
        async with AsyncExitStack() as stack:
            held = stack.enter_context(closing(hold(settings.listen)))
            background = await stack.enter_async_context(Background())
            background.start(every(_LAST_LINES, stream.flush))
            pool = _pool(settings, count, WorkerOptions(config, held.address, as_json))
            stopping = _signals(pool)
            if settings.metrics:
                listener = _listener(pool, PoolMetrics(pool, count, lambda: stream.dropped))
                stack.push_async_callback(listener.close)
                await listener.start(settings.metrics)
            stack.push_async_callback(pool.stop)
            await _until(stopping, _serve(pool, count, shared=settings.redis is not None))
        _log.info("stopped")
    finally:
        await stream.drain(_LAST_LINES)


def _pool(settings: Settings, count: int, options: WorkerOptions) -> Pool:
    waits = settings.workload_api.patience if settings.workload_api else 0.0
    completes = settings.audit.patience if settings.audit.path else 0.0  # a slow disk completes its file
    return Pool(options, count, settings.drain + completes, start=START + waits)


async def _serve(pool: Pool, count: int, *, shared: bool) -> None:
    await pool.start()
    if not shared:
        _log.warning(
            "limits and acknowledgements are per worker: a caller may use its budget once per worker, and an "
            "acknowledged webhook is known to one worker only; set redis to share them",
            workers=count,
        )
    await pool.run()


async def _until(stopping: asyncio.Event, serving: Coroutine[None, None, None]) -> None:
    """Serves until it is to stop. Raises what ends it by itself."""
    running, told = asyncio.create_task(serving), asyncio.create_task(stopping.wait())
    await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        told.cancel()
        await running
    _log.info("draining")
    running.cancel()
    await asyncio.wait({running})


def _signals(pool: Pool) -> asyncio.Event:
    """SIGHUP reloads, SIGUSR2 replaces the workers one by one; the event is that of SIGTERM and SIGINT."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, pool.reload)
    loop.add_signal_handler(signal.SIGUSR2, pool.roll)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    accept_signals()
    return stopping


def _listener(pool: Pool, metrics: PoolMetrics) -> ProbeListener:
    async def live() -> Page:
        return probe_listener.live()

    async def ready() -> Page:
        return probe_listener.ready(pool.readiness())

    async def all_metrics() -> Page:
        return probe_listener.metrics(await metrics.collect())

    return ProbeListener({"/livez": live, "/readyz": ready, "/metrics": all_metrics})
