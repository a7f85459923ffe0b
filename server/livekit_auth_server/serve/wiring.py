"""The one composition root: settings in, a running server out.

Guarantees: whatever was opened is closed, the last first, when the server ends and when a later step of the start
fails. A server that ends drains first; then it closes the audit trail, the stores, the telemetry and the listener.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from prometheus_client import generate_latest

from livekit_auth_server.audit.open import open_trail
from livekit_auth_server.core.mint import mint
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.logs.decision_log import DecisionLog
from livekit_auth_server.process import probe_listener
from livekit_auth_server.process.background import Background, every
from livekit_auth_server.process.clock import SystemClock
from livekit_auth_server.process.operating_system import accept_signals, return_large_blocks
from livekit_auth_server.process.probe_listener import ProbeListener
from livekit_auth_server.process.readiness import Condition
from livekit_auth_server.reload.load import fingerprints, load_server_identity, load_state
from livekit_auth_server.reload.metrics import ReloadMetrics
from livekit_auth_server.reload.parts import candidate, parts, warn, warn_of_stale_crls
from livekit_auth_server.reload.reloader import Reloader
from livekit_auth_server.selfcheck.metrics import SelfcheckMetrics
from livekit_auth_server.selfcheck.schedule import Schedule
from livekit_auth_server.selfcheck.verdict import Verdict
from livekit_auth_server.service.budget import Budget
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.decisions import Decisions
from livekit_auth_server.service.handlers import handlers
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.state import InForce
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.service.webhooks import Webhooks
from livekit_auth_server.stores.open import Stores, open_stores
from livekit_auth_server.telemetry.connection_metrics import ConnectionMetrics
from livekit_auth_server.telemetry.mint_metrics import timed
from livekit_auth_server.telemetry.open import Telemetry, open_telemetry
from livekit_auth_server.telemetry.registry import new_registry
from livekit_auth_server.telemetry.shadow_metrics import ShadowMetrics
from livekit_auth_server.telemetry.webhook_metrics import WebhookMetrics
from livekit_auth_server.transport.grpc_aio.server import Limits, Server
from livekit_auth_server.transport.tls import Endpoint
from livekit_auth_server.trust.doubts import of_bundles
from livekit_auth_server.trust.workload_api import opened

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.audit.trail import AuditTrail
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.files.watch import Fingerprint
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.process.probe_listener import Page
    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.supervisor.worker_side import SupervisorLine
    from livekit_auth_server.trust.workload_api import WorkloadSource

_LAST_LINES = 0.5  # seconds that a slow reader of the log is given
_ORPHANED = 0.5  # seconds for calls in flight once the supervisor is gone: its successor needs the audit files
_SMALL_REQUEST = 256 * 1024  # bytes in memory up to which a decoded request waits for its own caller's others only
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Process:
    """What the parts of one process are made from. `worker` is its number where several share the port."""

    settings: Settings
    stream: LineStream
    source: WorkloadSource | None
    in_force: InForce
    registry: CollectorRegistry
    verdict: Verdict
    worker: int | None = None
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves on `port`. `audit.ready()` says why nothing can be issued."""

    server: Server
    port: int
    endpoint: Endpoint
    stores: Stores
    audit: AuditTrail


async def serve(settings: Settings, stream: LineStream, supervisor: SupervisorLine | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains. `stream` takes all lines. Raises ConfigError before it serves.

    A worker has a line to its `supervisor`, which answers the probes; the worker ends when its supervisor does.
    """
    try:
        async with AsyncExitStack() as stack:
            await _serve(stack, settings, stream, supervisor)
        _log.info("stopped")
    finally:
        await stream.drain(_LAST_LINES)


async def _serve(
    stack: AsyncExitStack, settings: Settings, stream: LineStream, supervisor: SupervisorLine | None
) -> None:
    return_large_blocks()
    source = stack.enter_context(opened(settings))
    before = fingerprints(settings)
    in_force = InForce(load_state(settings, source))
    worker = supervisor.worker if supervisor is not None else None
    registry, verdict = new_registry(lambda: stream.dropped), Verdict(settings.selfcheck)
    process = Process(settings, stream, source, in_force, registry, verdict, worker)
    background = await stack.enter_async_context(Background())
    condition, stopping = Condition(), asyncio.Event()
    if settings.metrics and supervisor is None:
        await _listen_for_probes(stack, settings.metrics, condition, process.registry)
    selfcheck = await _new_selfcheck(process)
    running = await _start(stack, process)
    reloader = _new_reloader(process, running.endpoint, before, selfcheck)
    condition.problems += [running.audit.ready, running.stores.problems, verdict.problems]
    condition.warnings += [reloader.failing, verdict.warnings]
    _on_signals(reloader, stopping)
    condition.phase = "serving"
    _report(process, running)
    background.start(every(_LAST_LINES, stream.flush))  # hands on lines that waited for a slow reader
    reloading = background.start(reloader.run())
    if selfcheck is not None:
        background.start(selfcheck.run())
    if supervisor is not None:
        background.start(_obey(supervisor, condition, process.registry, reloader, stopping))
    await stopping.wait()
    condition.phase = "draining"
    reloading.cancel()
    grace = min(settings.drain, _ORPHANED) if supervisor is not None and supervisor.gone else settings.drain
    _log.info("draining", seconds=grace)
    await running.server.stop(grace)


async def _listen_for_probes(
    stack: AsyncExitStack, address: str, condition: Condition, registry: CollectorRegistry
) -> None:
    async def live() -> Page:
        return probe_listener.live()

    async def ready() -> Page:
        return probe_listener.ready(condition.now())

    async def metrics() -> Page:
        return probe_listener.metrics(registry)

    listener = ProbeListener({"/livez": live, "/readyz": ready, "/metrics": metrics})
    stack.push_async_callback(listener.close)
    await listener.start(address)


async def _new_selfcheck(process: Process) -> Schedule | None:
    """What compares this server with livekit-api, if the settings want that. With `enforce`, it has done so once."""
    mode = process.settings.selfcheck
    if mode == "off":
        return None
    SelfcheckMetrics(process.registry, process.verdict)
    selfcheck = Schedule(process.in_force, process.verdict, process.settings.at(Path()))
    if mode == "enforce":
        await selfcheck.check()
    else:
        selfcheck.request()
    return selfcheck


async def _start(stack: AsyncExitStack, process: Process) -> Running:
    """Opens what the server needs, then the server. Raises ConfigError."""
    settings, clock, registry = process.settings, process.clock, process.registry
    endpoint = Endpoint(load_server_identity(settings, process.source), process.in_force.state.identifier.bundles.union)
    telemetry = open_telemetry(settings, process.in_force, endpoint, clock, registry)
    stack.push_async_callback(telemetry.close)
    stores = await open_stores(settings, clock, registry)
    stack.push_async_callback(stores.close)
    audit = await open_trail(settings, clock, registry, stream=process.stream, worker=process.worker)
    stack.push_async_callback(audit.close)
    server = _new_server(process, endpoint, telemetry, stores, audit)
    stack.push_async_callback(server.stop, 0.0)
    try:
        port = await server.start(settings.listen, endpoint.credentials())
    except OSError as error:
        raise ConfigError("listen", str(error)) from None
    return Running(server, port, endpoint, stores, audit)


def _new_server(
    process: Process, endpoint: Endpoint, telemetry: Telemetry, stores: Stores, audit: AuditTrail
) -> Server:
    settings, clock, registry = process.settings, process.clock, process.registry
    trail = DecisionLog(audit, clock) if settings.log.decisions else audit
    decisions = Decisions(stores.decisions)
    issuer = Issuer(trail, decisions, new_decision_id, timed(mint, registry), process.verdict.gate)
    webhooks = Webhooks(stores.acknowledged, settings.webhooks.max_body, WebhookMetrics(registry))
    limits = Limits(**settings.limits.model_dump())
    room = Budget(limits.request_bytes // 2, limits.request_bytes // 4, small=_SMALL_REQUEST)
    calls = Calls(
        process.in_force, clock, telemetry.observer, stores.limits, issuer.deny_unlisted, room, issuer.deny_invalid
    )
    return Server(
        handlers(issuer, webhooks, Turns(clock)),
        calls,
        limits,
        reflect=settings.reflection,
        share_port=process.worker is not None,
        accepted=lambda: endpoint.handshakes,
        tell=ConnectionMetrics(registry).happened,
    )


def _new_reloader(
    process: Process, endpoint: Endpoint, before: dict[str, Fingerprint], selfcheck: Schedule | None
) -> Reloader:
    """Keeps what is in force up to date with its files. `before` is from before they were loaded."""
    settings, in_force, clock, source = process.settings, process.in_force, process.clock, process.source
    metrics = ReloadMetrics(process.registry, before)
    metrics.count_stale_crls(lambda: len(in_force.state.denied.stale(clock.now())))
    state = in_force.state
    warn_of_stale_crls(state.denied, clock.now())
    warn([*state.denied.idle, *of_bundles(state.identifier.bundles, clock.now())])
    kinds = parts(settings, in_force, endpoint, clock, source)
    if selfcheck is not None:
        checked = ("policy", "keys")
        kinds = [part.followed_by(selfcheck.request) if part.kind in checked else part for part in kinds]
    if settings.shadow_policy is not None:
        observer = ShadowMetrics(process.registry, clock)
        kinds.append(candidate(settings, settings.shadow_policy, in_force, observer))
    reloader = Reloader(kinds, before, metrics)
    if source is not None and source.moved():
        reloader.request()  # something came after it was loaded and before the reloader began to look
    return reloader


def _on_signals(reloader: Reloader, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.request)
    loop.add_signal_handler(signal.SIGUSR2, _no_roll)  # without a handler it would end the process
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    accept_signals()


def _no_roll() -> None:
    _log.warning("SIGUSR2 is for the supervisor of several workers; nothing is done")


def _report(process: Process, running: Running) -> None:
    state = process.in_force.state
    _log.info(
        "serving",
        listen=process.settings.listen,
        port=running.port,
        policy_revision=state.policy.revision,
        callers=len(state.policy.callers),
        projects=sorted(state.keys.projects),
        shared_limits=running.stores.link is not None,
    )


async def _obey(
    supervisor: SupervisorLine,
    condition: Condition,
    registry: CollectorRegistry,
    reloader: Reloader,
    stopping: asyncio.Event,
) -> None:
    """Obeys the supervisor while it is there, then stops the worker."""
    try:
        await supervisor.run(condition, lambda: generate_latest(registry), reloader.request)
        _log.error("supervisor is gone; this worker stops")
    finally:
        stopping.set()


def new_decision_id() -> str:
    """96 random bits in hexadecimal."""
    return secrets.token_hex(12)
