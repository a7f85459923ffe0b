"""An HTTP/2 server over mutual TLS that answers every call with the bytes of a test: for what no library sends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from support.pki import Authority

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1

Field = tuple[bytes, bytes]


@dataclass
class Answer:
    """Response headers and messages as they go on the wire; `trailers` None ends the stream without any."""

    messages: Sequence[bytes] = ()
    trailers: Sequence[Field] | None = ((b"grpc-status", b"0"),)
    headers: Sequence[Field] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
    calls: int = field(default=0, compare=False)

    def frames(self, stream: int) -> bytes:
        self.calls += 1
        only = self.trailers is None and not self.messages
        sent = frame(HEADERS, END_HEADERS | END_STREAM * only, stream, fields(self.headers))
        for index, message in enumerate(self.messages):
            last = self.trailers is None and index == len(self.messages) - 1
            sent += frame(DATA, END_STREAM * last, stream, b"\0" + struct.pack(">I", len(message)) + message)
        if self.trailers is not None:
            sent += frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(self.trailers))
        return sent


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def fields(pairs: Sequence[Field]) -> bytes:
    """Each as a literal that isn't indexed (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)


def _text(text: bytes) -> bytes:
    length, more = len(text), b""
    if length < 127:
        return bytes([length]) + text
    length -= 127
    while length >= 128:
        more += bytes([length & 127 | 128])
        length >>= 7
    return b"\x7f" + more + bytes([length]) + text


@contextlib.asynccontextmanager
async def raw_server(answer: Answer, authority: Authority, directory: Path) -> AsyncIterator[str]:
    """Serves on 127.0.0.1, and gives HOST:PORT."""
    certificate, key = authority.issue(dns=["localhost"]).write(directory, "raw-server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authority.leaf_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer.transport)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readexactly(len(PREFACE))
            writer.write(frame(SETTINGS, 0, 0, b""))
            while True:
                head = await reader.readexactly(9)
                kind, flags, (stream,) = head[3], head[4], struct.unpack(">I", head[5:])
                payload = await reader.readexactly(int.from_bytes(head[:3]))
                if kind in {SETTINGS, PING} and not flags & ACK:
                    writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
                if kind == DATA and flags & END_STREAM:
                    writer.write(answer.frames(stream))
                await writer.drain()

    connections: set[asyncio.WriteTransport] = set()
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0)  # lets the transports go
