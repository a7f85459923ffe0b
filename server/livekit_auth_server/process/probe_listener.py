"""The plain HTTP listener for probes and Prometheus: /livez, /readyz, /metrics.

Guarantees: at most CONNECTIONS connections at a time, each with SECONDS to send its request and SECONDS to take the
answer; only GET and HEAD, one request per connection, no body, headers of at most HEADERS bytes. When all places are
taken, the connection that has waited longest for its peer is closed, so that silent and slow peers keep no probe out.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
import structlog
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prometheus_client.registry import Collector

    from livekit_auth_server.process.readiness import Readiness

CONNECTIONS = 16
HEADERS = 8192
SECONDS = 2.0

_log = structlog.get_logger("livekit_auth_server")
_REQUEST = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.[01]\r?\n")


@dataclass(frozen=True, slots=True)
class Page:
    """The answer of a path."""

    body: bytes
    type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK

    def encode(self, *, head: bool = False) -> bytes:
        """The whole response, or its head alone."""
        allow = "Allow: GET, HEAD\r\n" if self.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        start = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.type}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
        )
        return start.encode("ascii") + (b"" if head else self.body)


def live() -> Page:
    """The answer of /livez."""
    return Page(b"ok\n")


def ready(readiness: Readiness) -> Page:
    """The answer of /readyz: 200 or 503, with the reasons as JSON."""
    status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(orjson.dumps(readiness.to_dict()) + b"\n", "application/json", status)


def metrics(registry: Collector) -> Page:
    """Prometheus' text format."""
    return Page(generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)


def _plain(status: HTTPStatus) -> Page:
    return Page(f"{status.phrase}\n".encode(), status=status)


class ProbeListener:
    """Serves pages, by path."""

    def __init__(self, pages: Mapping[str, Callable[[], Awaitable[Page]]]) -> None:
        self._pages = pages
        self._open: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], None] = {}  # of the open ones, those whose peer is to act, oldest first
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> int:
        """Listens on HOST:PORT and returns the port. Raises ConfigError."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._connected, host.strip("[]"), int(port), limit=HEADERS, backlog=CONNECTIONS
            )
        except OSError as error:
            raise ConfigError("metrics", f"can't listen on {address}: {error.strerror}") from None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening, and closes open connections."""
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        try:
            if not self._has_room():
                return
            self._open.add(task)
            self._idle[task] = None
            await self._exchange(task, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # closed by the peer, too slow (TimeoutError is an OSError), or closed to make room
        finally:
            self._open.discard(task)
            self._idle.pop(task, None)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def _has_room(self) -> bool:
        """Closes the longest-waiting connection if all places are taken. False when all are being answered."""
        if len(self._open) >= CONNECTIONS:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            del self._idle[oldest]
            self._open.discard(oldest)
            oldest.cancel()
        return True

    async def _exchange(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = None
        del self._idle[task]
        async with asyncio.timeout(SECONDS):
            writer.transport.set_write_buffer_limits(high=0)  # so that drain waits until the peer has taken it
            writer.write(await self._answer(head))
            self._idle[task] = None
            await writer.drain()

    async def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encode()
        request = _REQUEST.match(head)
        if request is None:
            return _plain(HTTPStatus.BAD_REQUEST).encode()
        method, path = request[1], request[2].partition(b"?")[0].decode("ascii")
        if method not in (b"GET", b"HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED).encode()
        page = self._pages.get(path)
        answer = _plain(HTTPStatus.NOT_FOUND) if page is None else await _made(page)
        return answer.encode(head=method == b"HEAD")


async def _made(page: Callable[[], Awaitable[Page]]) -> Page:
    try:
        return await page()
    except Exception:  # noqa: BLE001 - the listener has other pages
        _log.exception("page failed")
        return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
