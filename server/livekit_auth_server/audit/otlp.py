"""A copy of the audit trail for an OpenTelemetry collector: OTLP logs over HTTP. Imported only where it is configured.

Guarantees:
- a call never waits for the collector: lines queue, `QUEUE` at most, and one thread sends them in batches;
- a batch counts as taken if the collector answered 2xx and rejected none of its records. If the collector can't be
  reached, or asks to try later, the batch is sent again: a record may arrive twice, and its decision_id shows it;
- best effort: what doesn't fit in the queue, or the collector refuses for good, is dropped and counted;
- required: nothing is dropped but denials, and issuance stops while a line has waited for longer than `patience` or
  the queue is full. So tokens may be ahead of the collector, by `QUEUE` lines and by `patience` and the time that their
  calls waited for the disk at most;
- a batch that the collector refuses is halved until it is taken, so that one line it can't take costs no other;
- a value longer than `MAX_TEXT` characters is cut off; a token or a secret is in no line.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from importlib.metadata import version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
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

from livekit_auth_server.audit.sink import unavailable
from livekit_auth_server.core.audit import AuditRecord, Withheld
from livekit_auth_server.telemetry.collector_session import CollectorSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from livekit_auth_server.audit.metrics import CopyMetrics
    from livekit_auth_server.core.audit import AuditLine
    from livekit_auth_server.service.ports import Clock

QUEUE = 2048  # lines
MAX_NOTES = QUEUE // 2  # denials don't crowd out permits
BATCH = 512
MAX_TEXT = 4096  # characters
_TIMEOUT = 5.0  # seconds for an export, with its repetitions
_LAST = 2.0  # seconds for what is queued at the end
_DROPS_LOGGED = 10.0  # seconds between log lines about dropped lines
_PREFIX = "livekit_auth."
_FOR_GOOD = ("HTTP status 4", "rejected")  # how problems begin that another try won't solve ...
_NOT_FOR_GOOD = ("HTTP status 408", "HTTP status 429")  # ... but for these
_OF_A_LINE = ("HTTP status 400", "HTTP status 413", "rejected")  # problems that one line of a batch can be
_log = structlog.get_logger("livekit_auth_server")


class _Queued(NamedTuple):
    """A line, and when it came by the monotonic clock."""

    line: AuditLine
    at: float


class AuditOtlp:
    """audit.sink.Sink for a collector. `patience`, in seconds, is for a collector that is required."""

    def __init__(
        self, exporter: Exporter, clock: Clock, metrics: CopyMetrics, *, required: bool = False, patience: float = 5.0
    ) -> None:
        self._exporter, self._clock, self._metrics = exporter, clock, metrics
        self._required, self._patience = required, patience
        self._queue: deque[_Queued] = deque()
        self._sending: list[_Queued] = []
        self._problem = ""  # why the last batch wasn't taken; empty if it was
        self._refused = ""  # the decision of a single line that the collector refused
        self._most = BATCH  # lines in the next batch
        self._dropped, self._drops_logged = 0, float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: SimpleQueue[list[AuditLine] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        metrics.show_waiting(lambda: self._waiting)

    async def open(self) -> None:
        """Starts the thread that sends. Whether the collector can be reached shows with the first line."""
        threading.Thread(target=self._send, name="audit-otlp", daemon=True).start()

    def stopped(self) -> bool:
        """Whether the collector is required, and takes nothing."""
        return bool(self.ready())

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Queues permits. Raises AUDIT_UNAVAILABLE if the collector is required and the queue has no room for all."""
        if self._required and self._waiting + len(records) > QUEUE:
            raise unavailable()
        for record in records:
            self._add(record, QUEUE)

    def note(self, line: AuditLine) -> None:
        """Queues a line about denials; drops it if the queue is half full."""
        self._add(line, MAX_NOTES)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Queues a line per decision. A required collector gets it even if the queue is full: it follows a permit."""
        now = int(self._clock.now())
        for decision in decisions:
            self._add(Withheld(decision, now, why), 2 * QUEUE if self._required else QUEUE)

    def tick(self) -> None:
        """Sends what is queued, and says how much was dropped."""
        self._submit()
        now = self._clock.monotonic()
        if self._dropped and now - self._drops_logged >= _DROPS_LOGGED:
            _log.warning("audit records for the collector were dropped", count=self._dropped)
            self._dropped, self._drops_logged = 0, now

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can, and always if the collector isn't required."""
        oldest = self._sending[0] if self._sending else self._queue[0] if self._queue else None
        if not self._required or oldest is None:
            return []
        if self._waiting < QUEUE and self._clock.monotonic() - oldest.at <= self._patience:
            return []
        why = self._problem or f"it hasn't answered for {self._patience:g} s"
        line = f", decision {self._refused}" if self._refused else ""
        return [f"the audit trail's collector takes no records: {why}{line} ({self._exporter.endpoint})"]

    async def close(self) -> None:
        """Sends what is queued, as far as that is possible in two seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._idle.wait()
                while self._queue:
                    self._submit()
                    await self._idle.wait()
                    if self._problem:
                        break
        if lost := self._waiting + self._dropped:
            _log.warning("audit records for the collector were dropped", count=lost)
        self._exporter.shutdown()
        self._batches.put(None)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._sending)

    @property
    def _enough(self) -> int:
        """Lines that are sent without waiting for a tick; a required collector's wait for none."""
        return 1 if self._required else self._most

    def _add(self, line: AuditLine, room: int) -> None:
        if self._waiting >= room:
            self._drop(1)
            return
        self._queue.append(_Queued(_bounded(line), self._clock.monotonic()))
        if len(self._queue) >= self._enough and not self._problem:  # after a problem the next try is a tick's
            self._submit()

    def _submit(self) -> None:
        if self._sending or not self._queue:
            return
        self._idle.clear()
        self._sending = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
        self._batches.put([queued.line for queued in self._sending])

    def _send(self) -> None:
        """The thread: sends batch after batch."""
        while (lines := self._batches.get()) is not None:
            problem = self._exporter.send(lines)
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._sent, problem)

    def _sent(self, problem: str) -> None:
        """A batch was taken, or wasn't."""
        batch, self._sending = self._sending, []
        of_a_line = problem.startswith(_OF_A_LINE)
        self._refused = getattr(batch[0].line, "decision_id", "") if of_a_line and len(batch) == 1 else ""
        if problem and problem != self._problem:
            _log.warning("audit records can't be exported", endpoint=self._exporter.endpoint, problem=problem)
        elif self._problem and not problem:
            _log.info("audit records are exported again", endpoint=self._exporter.endpoint)
        self._problem = problem
        if not problem:
            self._metrics.count("exported", len(batch))
            self._most = min(BATCH, 2 * self._most)
        elif of_a_line and len(batch) > 1:
            self._most = len(batch) // 2
            self._queue.extendleft(reversed(batch))
        elif problem.startswith(_FOR_GOOD) and not problem.startswith(_NOT_FOR_GOOD) and not self._required:
            self._metrics.count("failed", len(batch))
        else:
            self._queue.extendleft(reversed(batch))
        if (len(self._queue) >= self._enough and not problem) or (of_a_line and len(batch) > 1):
            self._submit()
        if not self._sending:
            self._idle.set()

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._metrics.count("dropped", count)


def _bounded(line: AuditLine) -> AuditLine:
    """The line without a text that callers can make long: spelled-out grants."""
    if isinstance(line, AuditRecord) and len(line.access) > MAX_TEXT:
        return replace(line, access=line.access[:MAX_TEXT])
    return line


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
        release = version("livekit-auth-server")
        about: dict[str, str | int] = {"service.name": "livekit-auth", "service.version": release}
        if worker is not None:
            about["livekit_auth.worker"] = worker
        resource = Resource(about).merge(OTELResourceDetector().detect())
        self._source = _Source(resource, InstrumentationScope("livekit_auth_server.audit", release))

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
