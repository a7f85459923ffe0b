"""OpenTelemetry: one server span for each call, exported with OTLP over HTTP. Imported only where it is configured.

Guarantees: a span has the method, the status, the reason and the decision's id, and nothing of the request or the
caller; a call never waits for the collector: at most `QUEUE` spans wait, then the oldest are dropped; a failure is
logged once, without the collector's words or the headers sent to it; the environment's proxies, .netrc and
OTEL_EXPORTER_OTLP_* don't change where spans go or what is sent with them, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from prometheus_client import Counter

from livekit_auth_server.telemetry.collector_session import CollectorSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.service.ports import FinishedCall

QUEUE = 2048  # spans
_BATCH = 512
_DELAY = 2.0  # seconds between exports
_TIMEOUT = 5.0  # seconds for an export, with its repetitions

# What counts as the server's fault: OpenTelemetry's conventions for gRPC. A denial isn't one.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_NO_PARENT = Context()
_log = structlog.get_logger("livekit_auth_server")


class Tracing:
    """Makes a span of each finished call: service.ports.CallObserver. Create it on the event loop.

    `headers` are sent to the collector with every export. `ratio` is the share of calls that are recorded when the
    caller sends no traceparent; a traceparent decides for itself.
    """

    def __init__(  # noqa: PLR0913 - settings
        self,
        service: str,
        endpoint: str,
        registry: CollectorRegistry,
        *,
        ratio: float = 1.0,
        headers: Mapping[str, str] | None = None,
        ca: Path | None = None,
        version: str = "",
    ) -> None:
        self._prefix = f"{service}/"
        self._spans = Counter("livekit_auth_spans", "Spans by what became of them.", ("outcome",), registry=registry)
        self._ended = self._spans.labels("ended")
        exporter = _Exporter(CollectorSession(headers or {}, ca), endpoint, self._spans, asyncio.get_running_loop())
        about = Resource({"service.name": "livekit-auth", "service.version": version})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=about.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE,
                schedule_delay_millis=_DELAY * 1000,
                max_export_batch_size=_BATCH,
                export_timeout_millis=_TIMEOUT * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("livekit_auth_server", version)

    def finished(self, call: FinishedCall) -> None:
        """Queues the call's span."""
        end = time.time_ns()
        attributes: dict[str, str] = {
            "rpc.system.name": "grpc",
            "rpc.method": self._prefix + call.method,
            "rpc.response.status_code": call.code,
        }
        if call.reason:
            attributes["livekit_auth.reason"] = call.reason
        if call.decision_id:
            attributes["livekit_auth.decision_id"] = call.decision_id
        if call.code in _FAULTS:
            attributes["error.type"] = call.code
        span = self._tracer.start_span(
            self._prefix + call.method,
            _parent(call),
            SpanKind.SERVER,
            attributes,
            start_time=end - int(call.seconds * 1e9),
        )
        if call.code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        if span.is_recording():
            self._ended.inc()
        span.end(end)

    async def close(self, seconds: float = 2.0) -> None:
        """Exports what is queued, for at most `seconds`."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="tracing", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), seconds)
        except TimeoutError:
            _log.warning("last spans not exported in time", seconds=seconds)


def _parent(call: FinishedCall) -> Context:
    """The caller's span as a context; an empty one without it, whatever else is active in this process."""
    trace = call.trace
    if trace is None:
        return _NO_PARENT
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                int(trace.trace_id, 16),
                int(trace.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT),
                trace_state=TraceState.from_header([call.tracestate]) if call.tracestate else None,
            )
        ),
        _NO_PARENT,
    )


class _Exporter(SpanExporter):
    """OTLP's exporter, with outcomes counted and the first failure of a row logged, as is its end."""

    def __init__(
        self, session: CollectorSession, endpoint: str, spans: Counter, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._session, self._endpoint, self._loop = session, endpoint, loop
        self._exported, self._failed = spans.labels("exported"), spans.labels("failed")
        self._otlp = OTLPSpanExporter(endpoint, timeout=_TIMEOUT, compression=Compression.Gzip, session=session)
        self._problem = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends a batch; called on the exporter's thread."""
        self._session.problem = ""
        try:
            result = self._otlp.export(spans)
        except Exception as error:  # noqa: BLE001 - it must go on with the next batch
            result, self._session.problem = SpanExportResult.FAILURE, type(error).__name__
        problem = self._session.problem
        if result is not SpanExportResult.SUCCESS and not problem:
            problem = "the batch couldn't be sent"
        (self._failed if problem else self._exported).inc(len(spans))
        if problem and problem != self._problem:
            self._say(lambda: _log.warning("spans can't be exported", endpoint=self._endpoint, problem=problem))
        elif self._problem and not problem:
            self._say(lambda: _log.info("spans are exported again", endpoint=self._endpoint))
        self._problem = problem
        return SpanExportResult.FAILURE if problem else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Ends what is under way."""
        self._otlp.shutdown()  # type: ignore[no-untyped-call]

    def _say(self, line: Callable[[], None]) -> None:
        """Logs from the event loop: this is the exporter's thread."""
        try:
            self._loop.call_soon_threadsafe(line)
        except RuntimeError:  # the loop has ended
            return
