"""Sends lines of the audit trail to an OpenTelemetry collector as log records: OTLP over HTTP.

It says of each batch whether the collector took it. The SDK takes a partial success for a success, so the answer is
read here. No token and no secret is in a line.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from livekit_auth_server.service.version import VERSION
from livekit_auth_server.telemetry.collector_session import CollectorSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from livekit_auth_server.core.audit import AuditLine

_TIMEOUT = 5.0  # seconds for an export, with its repetitions
_PREFIX = "livekit_auth."


@dataclass(frozen=True, slots=True)
class _Source:
    """What every record of a batch has in common."""

    resource: Resource
    scope: InstrumentationScope


class Exporter:
    """Sends batches to the collector. For use by one thread. `worker` is this process's number among several."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str] | None = None, ca: Path | None = None, worker: int | None = None
    ) -> None:
        self.endpoint = endpoint
        self._session = CollectorSession(headers or {}, ca)
        self._otlp = OTLPLogExporter(endpoint, timeout=_TIMEOUT, compression=Compression.Gzip, session=self._session)
        about: dict[str, str | int] = {"service.name": "livekit-auth", "service.version": VERSION}
        if worker is not None:
            about["livekit_auth.worker"] = worker
        resource = Resource(about).merge(OTELResourceDetector().detect())
        self._source = _Source(resource, InstrumentationScope("livekit_auth_server.audit", VERSION))

    def __repr__(self) -> str:
        return f"Exporter({self.endpoint})"

    def send(self, lines: Sequence[AuditLine]) -> str:
        """Sends a batch; returns why it wasn't taken, or nothing."""
        self._session.problem = ""
        try:
            records = [_log_record(line, self._source) for line in lines]
        except Exception as error:  # noqa: BLE001 - another try wouldn't help
            return f"rejected before it was sent: {type(error).__name__}"
        try:
            result = self._otlp.export(records)
        except Exception as error:  # noqa: BLE001 - the next batch may be sent
            return type(error).__name__
        if result is not LogRecordExportResult.SUCCESS:
            return self._session.problem or "the batch couldn't be sent"
        return self._session.problem or _rejected(self._session.answer)

    def shutdown(self) -> None:
        """Ends an export's repetitions."""
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


def _rejected(answer: bytes) -> str:
    """What OTLP calls a partial success, which the SDK takes for a success."""
    try:
        count = ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records
    except DecodeError:  # the status is what counts: some answer in JSON, or with text
        return ""
    return f"rejected {count} records of a batch" if count else ""


def _log_record(line: AuditLine, source: _Source) -> ReadableLogRecord:
    """The line as a log record. Members that don't apply are left out."""
    members = line.members()
    kind, seconds = members.pop("kind"), members.pop("time")
    denied = members.get("permitted") is False
    attributes: dict[str, Any] = {f"{_PREFIX}{name}": value for name, value in members.items() if value not in _UNSAID}
    return ReadableLogRecord(
        LogRecord(
            timestamp=seconds * 1_000_000_000,
            observed_timestamp=time.time_ns(),
            context=_trace(members.get("trace_id", "")),
            severity_number=SeverityNumber.WARN if denied else SeverityNumber.INFO,
            severity_text="WARN" if denied else "INFO",
            body=f"audit {kind}",
            attributes=attributes,
            event_name=f"{_PREFIX}audit.{kind}",
        ),
        source.resource,
        source.scope,
    )


_UNSAID: tuple[object, ...] = ("", None, [])


def _trace(trace_id: str) -> Context:
    """The caller's trace as a context, so that a backend shows the record beside its spans."""
    if not trace_id:
        return Context()
    return set_span_in_context(NonRecordingSpan(SpanContext(int(trace_id, 16), 0, is_remote=True)), Context())
