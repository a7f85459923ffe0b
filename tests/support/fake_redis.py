"""A server that speaks Redis' protocol and answers what a test tells it to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class FakeRedis:
    """`answers` has the bytes that a command's name is answered with, in the protocol; any other gets +OK."""

    port: int
    answers: dict[str, bytes] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while count := (await reader.readline())[1:]:
                words = []
                for _ in range(int(count)):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(self.answers.get(words[0].decode(), b"+OK\r\n"))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def fake_redis(**answers: bytes) -> AsyncIterator[FakeRedis]:
    """One on a free port of the loopback interface."""
    fake = FakeRedis(0, answers)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
