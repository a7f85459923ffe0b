"""A server's metrics as several workers show them on one page: each series once a worker, with the label `worker`."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)\Z")
_SUPERVISOR = """\
# TYPE livekit_auth_workers gauge
livekit_auth_workers 2
# TYPE livekit_auth_workers_live gauge
livekit_auth_workers_live 2
# TYPE livekit_auth_worker_restarts_total counter
livekit_auth_worker_restarts_total 1
# TYPE livekit_auth_workers_hung_total counter
livekit_auth_workers_hung_total 0
"""


def as_workers(page: str) -> str:
    """The page of two workers that have each counted what this one process has."""
    lines = []
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            lines.append(line)
            continue
        labels = f"{match['labels']}," if match["labels"] else ""
        lines += [f'{match["name"]}{{{labels}worker="{worker}"}} {match["value"]}' for worker in (0, 1)]
    return "\n".join(lines) + "\n" + _SUPERVISOR


@contextmanager
def worker_page(source: str) -> Iterator[int]:
    """Serves the page at `source` in that form until the block ends; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urlopen(source, timeout=5) as answer:  # noqa: S310 - the test's own http url
                body = as_workers(answer.read().decode()).encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
