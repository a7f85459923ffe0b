"""A collector that takes spans and logs by OTLP over HTTP, reads them with OpenTelemetry's messages, and can fail."""

from __future__ import annotations

import gzip
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SUCCESS = 200


@dataclass
class Collector:
    """What came in, and what to answer: `status` with `body` and `headers`, or nothing at all while `hanging`."""

    port: int = 0
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hanging: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list, repr=False)
    taken: list[bytes] = field(default_factory=list, repr=False)  # logs that were answered with a success

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def exports(self) -> list[ExportTraceServiceRequest]:
        return [
            ExportTraceServiceRequest.FromString(body) for path, _, body in list(self.requests) if path == "/v1/traces"
        ]

    @property
    def spans(self) -> list[Span]:
        every = [
            scoped.spans for export in self.exports for span in export.resource_spans for scoped in span.scope_spans
        ]
        return [span for spans in every for span in spans]

    @property
    def logs_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/logs"

    @property
    def resource_logs(self) -> list[ResourceLogs]:
        """Of the exports that were answered with a success."""
        exports = [ExportLogsServiceRequest.FromString(body) for body in list(self.taken)]
        return [logs for export in exports for logs in export.resource_logs]

    @property
    def logs(self) -> list[LogRecord]:
        return [record for logs in self.resource_logs for scoped in logs.scope_logs for record in scoped.log_records]

    def wait_for_logs(self, count: int, seconds: float = 15) -> list[LogRecord]:
        """The log records, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.logs) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} log records came"
            time.sleep(0.05)
        return found

    def wait(self, condition: Callable[[Span], bool], seconds: float = 15) -> Span:
        """The first span that fits, once it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for span in self.spans:
                if condition(span):
                    return span
            time.sleep(0.05)
        raise AssertionError(f"no such span among {len(self.spans)}")


def attributes(span: Span) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def members(record: LogRecord) -> dict[str, Any]:
    """The attributes of a log record without their prefix, as Python's values."""
    return {attribute.key.removeprefix("livekit_auth."): value(attribute.value) for attribute in record.attributes}


def value(given: AnyValue) -> Any:
    kind = given.WhichOneof("value")
    if kind == "kvlist_value":
        return {pair.key: value(pair.value) for pair in given.kvlist_value.values}
    if kind == "array_value":
        return [value(item) for item in given.array_value.values]
    return getattr(given, kind) if kind else None


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Listens on a loopback port until the block ends."""
    collector = Collector()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.requests.append((self.path, dict(self.headers), body))
            while collector.hanging.is_set() and not ended.wait(0.05):
                pass
            if collector.status == SUCCESS and self.path == "/v1/logs":
                collector.taken.append(body)
            self.send_response(collector.status)
            for name, value in {**collector.headers, "content-length": str(len(collector.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(collector.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """The server under test gave up waiting."""

    with Server(("127.0.0.1", port), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            ended.set()
            server.shutdown()
            thread.join()
