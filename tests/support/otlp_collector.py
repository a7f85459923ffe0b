"""A collector that takes spans with OTLP over HTTP, reads them with OpenTelemetry's own messages, and can misbehave."""

from __future__ import annotations

import gzip
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What came in, and what to answer: `status` with `body` and `headers`, or nothing at all while `hanging`."""

    port: int = 0
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hanging: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def exports(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for _, _, body in list(self.requests)]

    @property
    def spans(self) -> list[Span]:
        every = [
            scoped.spans for export in self.exports for span in export.resource_spans for scoped in span.scope_spans
        ]
        return [span for spans in every for span in spans]

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
