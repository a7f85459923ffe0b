"""Opens the telemetry of a server: metrics of calls and of the configuration, and traces where configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.config.tracing import read_headers
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes
from livekit_auth_server.process.extras import require
from livekit_auth_server.service.methods import SERVICE
from livekit_auth_server.service.version import VERSION
from livekit_auth_server.telemetry.call_metrics import CallerMetrics, Observer, Observers
from livekit_auth_server.telemetry.config_metrics import StateMetrics
from livekit_auth_server.transport.tls import expiry

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.config.tracing import CollectorSettings
    from livekit_auth_server.service.ports import CallObserver, Clock
    from livekit_auth_server.service.state import InForce
    from livekit_auth_server.telemetry.tracing import Tracing
    from livekit_auth_server.transport.tls import Endpoint


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The observer of calls, and the parts of it that have to be closed."""

    observer: CallObserver
    calls: Observer
    tracing: Tracing | None = None

    async def close(self) -> None:
        """Logs what was counted and not yet logged, and exports the last spans."""
        self.calls.close()
        if self.tracing is not None:
            await self.tracing.close()


def open_telemetry(
    settings: Settings, in_force: InForce, endpoint: Endpoint, clock: Clock, registry: CollectorRegistry
) -> Telemetry:
    """Metrics in the registry, and an exporter of traces if it is configured. Raises ConfigError."""
    StateMetrics(registry, in_force, lambda: expiry(endpoint.server), clock, VERSION)
    calls = Observer(registry, clock)
    observers: list[CallObserver] = [calls]
    if settings.metrics_callers:
        observers.append(CallerMetrics(registry, settings.metrics_callers))
    tracing = _open_tracing(settings, registry)
    if tracing is not None:
        observers.append(tracing)
    return Telemetry(observers[0] if len(observers) == 1 else Observers(*observers), calls, tracing)


def read_collector(
    settings: Settings, setting: str, collector: CollectorSettings
) -> tuple[dict[str, str], Path | None]:
    """The headers for the collector, and the file of its CAs.

    Raises ConfigError, also where the libraries that `setting` needs aren't installed.
    """
    require("otlp", setting)
    headers = read_headers(settings.at(collector.headers_file)) if collector.headers_file else {}
    ca = settings.at(collector.ca) if collector.ca else None
    if ca is not None and b"-----BEGIN CERTIFICATE-----" not in read_bytes(ca):
        raise ConfigError(ca, "isn't a PEM file of CA certificates")
    return headers, ca


def _open_tracing(settings: Settings, registry: CollectorRegistry) -> Tracing | None:
    configured = settings.tracing
    if configured is None:
        return None
    headers, ca = read_collector(settings, "tracing", configured)
    # Imported here: the libraries are an extra, and take memory.
    from livekit_auth_server.telemetry.tracing import Tracing  # noqa: PLC0415

    return Tracing(
        SERVICE,
        configured.endpoint,
        registry,
        ratio=configured.ratio,
        headers=headers,
        ca=ca,
        version=VERSION,
    )
