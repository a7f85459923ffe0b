"""Opens the audit trail with the sinks that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_auth_server.audit.audit_file import AuditFile
from livekit_auth_server.audit.audit_log import AuditLog
from livekit_auth_server.audit.chained_file import ChainedFile
from livekit_auth_server.audit.metrics import AuditMetrics, CopyMetrics
from livekit_auth_server.audit.otlp import AuditOtlp
from livekit_auth_server.audit.sink import SinkError
from livekit_auth_server.audit.trail import AuditTrail
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.telemetry.open import read_collector

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.audit.sink import Sink
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.service.ports import Clock


async def open_trail(
    settings: Settings, clock: Clock, registry: CollectorRegistry, *, stream: LineStream, worker: int | None = None
) -> AuditTrail:
    """The trail of a worker: a file, or log lines on the stream, and perhaps a collector. Raises ConfigError.

    `worker` is its number where there are several.
    """
    audit, metrics = settings.audit, AuditMetrics(registry)
    path = settings.at(audit.path) / f"audit.{worker or 0}.jsonl" if audit.path is not None else None
    # The collector's comes first: it takes lines or refuses them at once, before the disk has any.
    sinks: list[Sink] = [] if audit.otlp is None else [_collector(settings, clock, registry, worker)]
    sinks.append(
        AuditFile(ChainedFile(path, clock), clock, metrics, audit.patience)
        if path is not None
        else AuditLog(stream, clock, metrics, worker)
    )
    trail = AuditTrail(sinks, clock, metrics)
    metrics.show(lambda: trail.waiting, trail.ready)
    try:
        await trail.open()
    except SinkError as error:
        raise ConfigError(path or "audit", f"the audit trail can't be kept here: {error}") from None
    return trail


def _collector(settings: Settings, clock: Clock, registry: CollectorRegistry, worker: int | None) -> Sink:
    """The sink that sends a copy to a collector. Raises ConfigError."""
    otlp = settings.audit.otlp
    assert otlp is not None  # noqa: S101 - its caller has looked
    headers, ca = read_collector(settings, "audit.otlp", otlp)
    # Imported here: the libraries are an extra, and take memory.
    from livekit_auth_server.audit.otlp_exporter import Exporter  # noqa: PLC0415

    exporter = Exporter(otlp.endpoint, headers, ca, worker)
    metrics = CopyMetrics(registry)
    return AuditOtlp(exporter, clock, metrics, required=otlp.required, patience=settings.audit.patience)
