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
    generate_latest,
)

from livekit_auth_server.audit.trail import AuditTrail, open_trail
from livekit_auth_server.core.mint import mint
from livekit_auth_server.files.yaml_file import ConfigError
from livekit_auth_server.logs.decision_log import DecisionLog
from livekit_auth_server.process import probe_listener
from livekit_auth_server.process.clock import SystemClock
from livekit_auth_server.process.operating_system import accept_signals, return_large_blocks
from livekit_auth_server.process.probe_listener import ProbeListener
from livekit_auth_server.process.readiness import Condition
from livekit_auth_server.reload.load import fingerprints, load_server_identity, load_state
from livekit_auth_server.reload.metrics import ReloadMetrics
from livekit_auth_server.reload.parts import candidate, parts, warn, warn_of_stale_crls
from livekit_auth_server.reload.reloader import Reloader
from livekit_auth_server.service.budget import Budget
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.methods import methods
from livekit_auth_server.service.state import InForce
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.service.webhooks import Webhooks
from livekit_auth_server.stores.open import Stores, open_stores
from livekit_auth_server.telemetry.counters import Counts
from livekit_auth_server.telemetry.mint_and_webhook_metrics import WebhookMetrics, timed
from livekit_auth_server.telemetry.open import Telemetry, open_telemetry
from livekit_auth_server.telemetry.shadow_metrics import ShadowMetrics
from livekit_auth_server.transport.grpc_aio.connections import EVENTS as CONNECTION_EVENTS
from livekit_auth_server.transport.grpc_aio.server import Limits, Server
from livekit_auth_server.transport.tls import Endpoint
from livekit_auth_server.trust.doubts import of_bundles
from livekit_auth_server.trust.workload_api import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.files.watch import Fingerprint
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.process.probe_listener import Page
    from livekit_auth_server.supervisor.control import Control
    from livekit_auth_server.trust.workload_api import WorkloadSource

_LAST_LINES = 0.5  # seconds that a slow reader of the log is given
_ORPHANED = 0.5  # seconds for calls in flight once the supervisor is gone: its successor needs the audit files
_SMALL_REQUEST = 256 * 1024  # bytes in memory up to which a decoded request waits for its own caller's others only
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves; `port` is the one it got. `audit.ready()` says why nothing can be issued."""

    server: Server
    port: int
    endpoint: Endpoint
    stores: Stores
    audit: AuditTrail
    telemetry: Telemetry
    source: WorkloadSource | None

    async def stop(self, grace: float) -> None:
        """Drains, then completes the audit trail and lets go of the stores."""
        await self.server.stop(grace)
        await self.audit.close()
        await self.stores.close()
        await self.telemetry.close()


def new_registry() -> CollectorRegistry:
    """A registry with what Prometheus' clients say of every process."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


async def start(  # noqa: PLR0913 - the composition root
    settings: Settings,
    in_force: InForce,
    registry: CollectorRegistry,
    stream: LineStream,
    *,
    source: WorkloadSource | None = None,
    worker: int | None = None,
) -> Running:
    """Starts the server; `worker` is its number where several share the port. Raises ConfigError."""
    clock = SystemClock()
    endpoint = Endpoint(load_server_identity(settings, source), in_force.state.identifier.bundles.union)
    telemetry = open_telemetry(settings, in_force, endpoint, clock, registry)
    stores = await open_stores(settings, clock, registry)
    directory = settings.at(settings.audit.path) if settings.audit.path else None
    try:
        audit = await open_trail(directory, settings.audit.patience, clock, registry, stream=stream, worker=worker)
    except ConfigError:
        await stores.close()
        raise
    decisions = DecisionLog(audit, clock) if settings.log.decisions else audit
    issuer = Issuer(decisions, new_decision_id, timed(mint, registry))
    text = "Connections by what became of them."
    connections = Counts("livekit_auth_connections", text, ("event",), registry)
    for event in CONNECTION_EVENTS:
        connections.add((event,), 0)
    limits = Limits(**settings.limits.model_dump())
    room = Budget(limits.request_bytes // 2, limits.request_bytes // 4, small=_SMALL_REQUEST)
    calls = Calls(in_force, clock, telemetry.observer, stores.limits, issuer.deny_unlisted, room)
    server = Server(
        methods(
            issuer,
            Webhooks(stores.acknowledged, settings.webhooks.max_body, WebhookMetrics(registry)),
            Turns(clock),
        ),
        calls,
        limits,
        reflect=settings.reflection,
        share_port=worker is not None,
        accepted=lambda: endpoint.handshakes,
        tell=lambda event, count: connections.add((event,), count),
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
    return Running(server, port, endpoint, stores, audit, telemetry, source)


async def _flush(stream: LineStream) -> None:
    """Hands on lines that waited for a slow reader, also when nothing new is logged."""
    while True:
        await asyncio.sleep(_LAST_LINES)
        stream.flush()


def new_reloader(
    settings: Settings, in_force: InForce, running: Running, before: dict[str, Fingerprint], registry: CollectorRegistry
) -> Reloader:
    """Keeps what is in force up to date with its files. `before` is from before they were loaded."""
    clock = SystemClock()
    metrics = ReloadMetrics(registry, before)
    metrics.count_stale_crls(lambda: len(in_force.state.denied.stale(clock.now())))
    state = in_force.state
    warn_of_stale_crls(state.denied, clock.now())
    warn([*state.denied.idle, *of_bundles(state.identifier.bundles, clock.now())])
    source = running.source
    kinds = parts(settings, in_force, running.endpoint, clock, source)
    if settings.shadow_policy is not None:
        kinds.append(candidate(settings, settings.shadow_policy, in_force, ShadowMetrics(registry, clock)))
    reloader = Reloader(kinds, before, metrics)
    if source is not None and source.moved():
        reloader.request()  # something came after it was loaded and before the reloader began to look
    return reloader


def _listener(condition: Condition, registry: CollectorRegistry) -> ProbeListener:
    async def live() -> Page:
        return probe_listener.live()

    async def ready() -> Page:
        return probe_listener.ready(condition.now())

    async def metrics() -> Page:
        return probe_listener.metrics(registry)

    return ProbeListener({"/livez": live, "/readyz": ready, "/metrics": metrics})


def _on_signals(reloader: Reloader, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.request)
    loop.add_signal_handler(signal.SIGUSR2, _no_roll)  # without a handler it would end the process
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    accept_signals()


def _no_roll() -> None:
    _log.warning("SIGUSR2 is for the supervisor of several workers; nothing is done")


def new_decision_id() -> str:
    """96 random bits in hexadecimal."""
    return secrets.token_hex(12)


async def serve(settings: Settings, stream: LineStream, control: Control | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises ConfigError before it serves. `stream` takes all lines.

    As a worker it has its supervisor's `control`, which then has the probes, and goes when its supervisor does.
    """
    with opened(settings) as source:
        await _serve(settings, stream, control, source)


async def _serve(
    settings: Settings, stream: LineStream, control: Control | None, source: WorkloadSource | None
) -> None:
    return_large_blocks()
    before = fingerprints(settings)
    state = load_state(settings, source)
    in_force = InForce(state)
    registry = new_registry()
    dropped = Gauge("livekit_auth_log_lines_dropped", "Log lines that nobody read in time.", registry=registry)
    dropped.set_function(lambda: stream.dropped)
    condition, stopping = Condition(), asyncio.Event()
    listener = _listener(condition, registry)
    if settings.metrics and control is None:
        await listener.start(settings.metrics)
    try:
        worker = control.worker if control else None
        running = await start(settings, in_force, registry, stream, source=source, worker=worker)
    except ConfigError:
        await listener.close()
        raise
    reloader = new_reloader(settings, in_force, running, before, registry)
    condition.problems += [running.audit.ready, running.stores.problems]
    condition.warnings.append(reloader.failing)
    _on_signals(reloader, stopping)
    condition.phase = "serving"
    _log.info(
        "serving",
        listen=settings.listen,
        port=running.port,
        policy_revision=state.policy.revision,
        callers=len(state.policy.callers),
        projects=sorted(state.keys.projects),
        shared_limits=running.stores.link is not None,
    )
    tasks = [asyncio.create_task(_flush(stream))]
    reloading = asyncio.create_task(reloader.run())
    if control is not None:
        tasks.append(asyncio.create_task(_controlled(control, condition, registry, reloader, stopping)))
    await stopping.wait()
    condition.phase = "draining"
    reloading.cancel()
    grace = min(settings.drain, _ORPHANED) if control is not None and control.gone else settings.drain
    _log.info("draining", seconds=grace)
    await running.stop(grace)
    await listener.close()
    await _cancelled(tasks)
    _log.info("stopped")
    await stream.drain(_LAST_LINES)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _controlled(
    control: Control, condition: Condition, registry: CollectorRegistry, reloader: Reloader, stopping: asyncio.Event
) -> None:
    """Obeys the supervisor while it is there."""
    try:
        await control.run(condition, lambda: generate_latest(registry), {"reload": reloader.request})
        _log.error("the supervisor is gone, so this worker goes")
    finally:
        stopping.set()
