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
from livekit_auth_server.adapters.bundles import load_bundles
from livekit_auth_server.adapters.clock import SystemClock
from livekit_auth_server.adapters.keys_file import keys_from_directory, keys_from_environment, keys_from_file
from livekit_auth_server.adapters.observe import Observer
from livekit_auth_server.adapters.policy_file import load_policy
from livekit_auth_server.adapters.yaml_file import ConfigError, read_bytes, read_private
from livekit_auth_server.core.identity import Identifier
from livekit_auth_server.core.keys import ApiKey, KeySet, Project
from livekit_auth_server.service.calls import Calls, State
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.methods import methods
from livekit_auth_server.service.webhooks import Webhooks
from livekit_auth_server.stores import Stores, open_stores
from livekit_auth_server.transport.server import Limits, Server
from livekit_auth_server.transport.tls import ServerIdentity, credentials

if TYPE_CHECKING:
    import grpc

    from livekit_auth_server.adapters.line_stream import LineStream
    from livekit_auth_server.settings import KeysSettings, Settings

_LAST_LINES = 0.5  # seconds that a slow reader of the log is given
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves; `port` is the one it got. `audit.ready()` says why nothing can be issued."""

    server: Server
    port: int
    stores: Stores
    audit: AuditTrail

    async def stop(self, grace: float) -> None:
        """Drains, then completes the audit trail and lets go of the stores."""
        await self.server.stop(grace)
        await self.audit.close()
        await self.stores.close()


def load_keys(settings: Settings) -> KeySet:
    """Every project's keys. Raises ConfigError."""
    projects = [
        Project(name, project.url, _keys(settings, name, project.keys)) for name, project in settings.projects.items()
    ]
    try:
        return KeySet(projects)
    except ValueError as error:
        raise ConfigError("projects", str(error)) from None


def _keys(settings: Settings, project: str, source: KeysSettings) -> tuple[ApiKey, ...]:
    """A source that isn't there is named by its setting: its value may be a key in the wrong place."""
    for kind, path in (("file", source.file), ("directory", source.directory)):
        if path is not None and not settings.at(path).exists():
            raise ConfigError(f"projects.{project}.keys.{kind}", f"there is no such {kind}; check the path")
    if source.file is not None:
        return keys_from_file(settings.at(source.file))
    if source.directory is not None:
        return keys_from_directory(settings.at(source.directory))
    return keys_from_environment(source.environment or "")


def load_state(settings: Settings) -> State:
    """Policy, keys and CA bundles as the settings name them. Raises ConfigError."""
    identity = settings.identity
    domains = {name: settings.at(path) for name, path in identity.trust_domains.items()}
    bundles = load_bundles(domains, settings.at(identity.dns_bundle) if identity.dns_bundle else None)
    policy = load_policy(settings.at(settings.policy), frozenset(settings.projects))
    return State(policy, load_keys(settings), Identifier(bundles))


def server_credentials(settings: Settings, state: State) -> grpc.ServerCredentials:
    """The server's TLS credentials. Raises ConfigError."""
    certificate, key = settings.at(settings.tls.certificate), settings.at(settings.tls.key)
    identity = ServerIdentity(read_bytes(certificate), read_private(key))
    try:
        return credentials(identity, state.identifier.bundles.union)
    except ValueError as error:
        raise ConfigError(f"{certificate} and {key}", str(error)) from None


def new_registry() -> CollectorRegistry:
    """A registry with what Prometheus' clients say of every process."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


async def start(settings: Settings, state: State, registry: CollectorRegistry, stream: LineStream) -> Running:
    """Starts the server. Raises ConfigError."""
    clock = SystemClock()
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
        port = await server.start(settings.listen, server_credentials(settings, state))
    except OSError as error:
        await audit.close()
        await stores.close()
        raise ConfigError("listen", str(error)) from None
    except ConfigError:
        await audit.close()
        await stores.close()
        raise
    return Running(server, port, stores, audit)


async def _flush(stream: LineStream) -> None:
    """Hands on lines that waited for a slow reader, also when nothing new is logged."""
    while True:
        await asyncio.sleep(_LAST_LINES)
        stream.flush()


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
    state = load_state(settings)
    registry = new_registry()
    dropped = Gauge("livekit_auth_log_lines_dropped", "Log lines that nobody read in time.", registry=registry)
    dropped.set_function(lambda: stream.dropped)
    if settings.metrics:
        _serve_metrics(settings.metrics, registry)
    running = await start(settings, state, registry, stream)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
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
    await stopping.wait()
    _log.info("draining", seconds=settings.drain)
    await running.stop(settings.drain)
    flushing.cancel()
    _log.info("stopped")
    await stream.drain(_LAST_LINES)
