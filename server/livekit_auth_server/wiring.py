"""The one composition root: settings in, a running server out."""

from __future__ import annotations

import asyncio
import secrets
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from livekit_auth_server.adapters.audit_trail import AuditTrail, open_trail
from livekit_auth_server.adapters.clock import SystemClock
from livekit_auth_server.adapters.observe import Observer
from livekit_auth_server.adapters.reload_metrics import ReloadMetrics
from livekit_auth_server.adapters.workload_api import opened
from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.loading import fingerprints, load_server_identity, load_state, parts, warn_of_stale_crls
from livekit_auth_server.reload import Reloader
from livekit_auth_server.service.calls import Calls, State
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.methods import methods
from livekit_auth_server.service.webhooks import Webhooks
from livekit_auth_server.stores import Stores, open_stores
from livekit_auth_server.transport.server import Limits, Server
from livekit_auth_server.transport.tls import Endpoint

if TYPE_CHECKING:
    from livekit_auth_server.adapters.line_stream import LineStream
    from livekit_auth_server.adapters.watch import Fingerprint
    from livekit_auth_server.adapters.workload_api import WorkloadSource
    from livekit_auth_server.settings import Settings

_LAST_LINES = 0.5  # seconds that a slow reader of the log is given
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves; `port` is the one it got. `audit.ready()` says why nothing can be issued."""

    server: Server
    port: int
    endpoint: Endpoint
    stores: Stores
    audit: AuditTrail
    source: WorkloadSource | None

    async def stop(self, grace: float) -> None:
        """Drains, then completes the audit trail and lets go of the stores."""
        await self.server.stop(grace)
        await self.audit.close()
        await self.stores.close()


def new_registry() -> CollectorRegistry:
    """A registry with what Prometheus' clients say of every process."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


async def start(
    settings: Settings,
    state: State,
    registry: CollectorRegistry,
    stream: LineStream,
    source: WorkloadSource | None = None,
) -> Running:
    """Starts the server. Raises ConfigError."""
    clock = SystemClock()
    endpoint = Endpoint(load_server_identity(settings, source), state.identifier.bundles.union)
    stores = await open_stores(settings, clock, registry)
    directory = settings.at(settings.audit.path) if settings.audit.path else None
    try:
        audit = await open_trail(directory, settings.audit.patience, clock, registry, stream=stream)
    except ConfigError:
        await stores.close()
        raise
    issuer = Issuer(audit, new_decision_id)
    calls = Calls(state, clock, Observer(registry), stores.limits, issuer.deny_unlisted)
    limits = Limits(**settings.limits.model_dump())
    server = Server(
        methods(issuer, Webhooks(stores.acknowledged, settings.webhooks.max_body)),
        calls,
        limits,
        reflect=settings.reflection,
    )
    try:
        port = await server.start(settings.listen, endpoint.credentials())
    except OSError as error:
        await audit.close()
        await stores.close()
        raise ConfigError("listen", str(error)) from None
    except ConfigError:
        await audit.close()
        await stores.close()
        raise
    return Running(server, port, endpoint, stores, audit, source)


async def _flush(stream: LineStream) -> None:
    """Hands on lines that waited for a slow reader, also when nothing new is logged."""
    while True:
        await asyncio.sleep(_LAST_LINES)
        stream.flush()


def new_reloader(
    settings: Settings, state: State, running: Running, before: dict[str, Fingerprint], registry: CollectorRegistry
) -> Reloader:
    """Keeps what is in force up to date with its files. `before` is from before they were loaded."""
    clock = SystemClock()
    metrics = ReloadMetrics(registry, before)
    metrics.count_stale_crls(lambda: len(state.denied.stale(clock.now())))
    warn_of_stale_crls(state.denied, clock.now())
    source = running.source
    reloader = Reloader(parts(settings, state, running.endpoint, clock, source), before, metrics)
    if source is not None and source.moved():
        reloader.request()  # something came after it was loaded and before the reloader began to look
    return reloader


def _serve_metrics(address: str, registry: CollectorRegistry) -> None:
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigError("metrics", f"can't listen on {address}: {error.strerror}") from None


def new_decision_id() -> str:
    """96 random bits in hexadecimal."""
    return secrets.token_hex(12)


async def serve(settings: Settings, stream: LineStream) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises ConfigError before it serves. `stream` takes all lines."""
    with opened(settings) as source:
        await _serve(settings, stream, source)


async def _serve(settings: Settings, stream: LineStream, source: WorkloadSource | None) -> None:
    before = fingerprints(settings)
    state = load_state(settings, source)
    registry = new_registry()
    dropped = Gauge("livekit_auth_log_lines_dropped", "Log lines that nobody read in time.", registry=registry)
    dropped.set_function(lambda: stream.dropped)
    if settings.metrics:
        _serve_metrics(settings.metrics, registry)
    running = await start(settings, state, registry, stream, source)
    reloader = new_reloader(settings, state, running, before, registry)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.request)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _log.info(
        "serving",
        listen=settings.listen,
        port=running.port,
        policy_revision=state.policy.revision,
        callers=len(state.policy.callers),
        projects=sorted(state.keys.projects),
        shared_limits=running.stores.link is not None,
    )
    flushing = asyncio.create_task(_flush(stream))
    reloading = asyncio.create_task(reloader.run())
    await stopping.wait()
    reloading.cancel()
    _log.info("draining", seconds=settings.drain)
    await running.stop(settings.drain)
    flushing.cancel()
    _log.info("stopped")
    await stream.drain(_LAST_LINES)
