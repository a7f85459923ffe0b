"""The listener for probes and metrics, against clients that mean no good."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process import probe_listener
from livekit_auth_server.process.probe_listener import CONNECTIONS, HEADERS, Page, ProbeListener
from livekit_auth_server.process.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 8 * 1024 * 1024


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def live() -> Page:
        return probe_listener.live()

    async def ready() -> Page:
        return probe_listener.ready(Readiness(("disk",), ("policy",)))

    async def large() -> Page:
        return Page(b"x" * LARGE)

    async def broken() -> Page:
        raise ValueError("a worker's metrics can't be read")

    listener = ProbeListener({"/livez": live, "/readyz": ready, "/large": large, "/broken": broken})
    yield await listener.start("127.0.0.1:0")
    await listener.close()


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Sends it and reads to the end: head and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = b""
    with suppress(ConnectionError):  # which is no answer
        async with asyncio.timeout(10):
            answer = await reader.read()
    await let_go(writer)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def let_go(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.01)


async def status(port: int, request: bytes) -> int:
    head, _ = await ask(port, request)
    return int(head.split()[1]) if head else 0


async def test_it_answers_get_and_head(port: int) -> None:
    head, body = await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in head
    assert body == b"ok\n"
    head, body = await ask(port, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Length: 3" in head
    assert body == b""


async def test_not_ready_is_503_with_the_reasons(port: int) -> None:
    head, body = await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert body == b'{"ready":false,"reasons":["disk"],"warnings":["policy"]}\n'


@pytest.mark.parametrize(
    ("request_", "header"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", b"Allow: GET, HEAD\r\n"),
        (b"GET /readyz HTTP/1.1\r\n\r\n", b"Content-Type: application/json\r\n"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"Cache-Control: no-store\r\n"),
        (b"GET /none HTTP/1.1\r\n\r\n", b"Content-Type: text/plain; charset=utf-8\r\n"),
    ],
)
async def test_answers_say_what_they_are(port: int, request_: bytes, header: bytes) -> None:
    head, _ = await ask(port, request_)
    assert header in head + b"\r\n"
    assert (b"Allow" in head) == (b"Allow" in header)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /livez?verbose=1 HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../livez HTTP/1.1\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/2\r\n\r\n", 400),
        (b"GET  /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /liv\xc3\xa9z HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
async def test_what_isnt_a_plain_request_for_a_page_is_refused(port: int, request_: bytes, expected: int) -> None:
    assert await status(port, request_) == expected


async def test_headers_without_end_are_refused_before_they_fill_memory(port: int) -> None:
    assert await status(port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * (3 * HEADERS)) in (431, 0)


async def test_a_second_request_on_the_connection_gets_no_answer(port: int) -> None:
    head, body = await ask(port, b"GET /livez HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")
    assert (head + body).count(b"HTTP/1.1 200") <= 1


async def test_a_connection_that_sends_nothing_is_closed_after_two_seconds(port: int) -> None:
    began = time.monotonic()
    assert await status(port, b"GET /livez HT") == 0
    assert 1.5 < time.monotonic() - began < 4


async def test_slow_client_gets_no_more_time(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    closed = asyncio.create_task(reader.read())
    while not closed.done() and time.monotonic() - began < 6:
        writer.write(b"G")
        await asyncio.sleep(0.1)
    await asyncio.wait({closed}, timeout=0)
    assert closed.done()
    closed.exception()
    assert time.monotonic() - began < 4
    await let_go(writer)


async def test_silent_connections_keep_no_probe_out(port: int) -> None:
    """Ten times as many as there are places, held open, while probes come."""
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10 * CONNECTIONS)]
    try:
        for _ in range(20):
            began = time.monotonic()
            assert await status(port, b"GET /livez HTTP/1.1\r\n\r\n") == 200
            assert time.monotonic() - began < 1
    finally:
        await let_go(*(writer for _, writer in silent))


async def test_unread_answers_keep_no_probe_out(port: int) -> None:
    """Every place is held, again and again, by somebody who asks for a large page and doesn't read it."""
    slow = []
    try:
        for _ in range(3 * CONNECTIONS):
            slow.append(await asyncio.open_connection("127.0.0.1", port, limit=1024))
            slow[-1][1].write(b"GET /large HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.3)
        for _ in range(5):
            began = time.monotonic()
            assert await status(port, b"GET /livez HTTP/1.1\r\n\r\n") == 200
            assert time.monotonic() - began < 1
    finally:
        await let_go(*(writer for _, writer in slow))


async def test_unread_answer_is_dropped_after_two_seconds(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\n\r\n")
    await asyncio.sleep(2.5)
    received = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(5):
            received = await reader.read()
    assert len(received) < LARGE
    await let_go(writer)


async def test_failed_page_is_reported_and_leaves_the_others(port: int) -> None:
    with capture_logs() as lines:
        assert await status(port, b"GET /broken HTTP/1.1\r\n\r\n") == 500
    assert [line["event"] for line in lines] == ["page failed"]
    assert await status(port, b"GET /livez HTTP/1.1\r\n\r\n") == 200


async def test_address_in_use_is_a_configuration_error(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^metrics: can't listen on 127\.0\.0\.1:{port}: "):
        await ProbeListener({}).start(f"127.0.0.1:{port}")
