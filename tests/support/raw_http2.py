"""HTTP/2 over mutual TLS by hand, for what no well-behaved gRPC client does: silent calls, half messages, odd headers.

    with RawConnection(deployment.port, credential, deployment.server_ca) as hostile:
        stream = hostile.open("/livekit_auth.v1.AuthService/IssueToken")  # headers, and nothing after them
        hostile.announce(stream, 4 * 1024 * 1024)                        # the prefix of a message that never comes
        hostile.fill({stream: 4 * 1024 * 1024 - 1})                      # as many bytes as the server's windows take
        hostile.wait_for_end({stream}, seconds=5)                        # the streams that the server ended

Sends exactly what it is told. `receive` answers SETTINGS and PING and keeps account of the server's windows and of the
streams that it ended; nothing else happens by itself. Header values are sent as literals without compression, and the
server's headers aren't decoded.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from support.pki import Authority, Credential

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE, _WINDOW, _MAX_FRAME = 4, 65535, 16384


@dataclass(frozen=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class RawConnection:
    """One connection. `ended` has the streams that the server ended, `closed` is whether it closed the connection."""

    def __init__(
        self, port: int, credential: Credential, server_ca: Authority, *, timeout: float = 10, speak: bool = True
    ) -> None:
        """Connects and completes the handshake; `speak` sends preface and settings too. Raises OSError."""
        context = ssl.create_default_context(cadata=server_ca.leaf_pem.decode())
        context.set_alpn_protocols(["h2"])
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*credential.write(Path(folder), "raw"))
        plain = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.ended: set[int] = set()
        self.closed = False
        self._buffer = b""
        self._next = 1
        self._connection_window = self._initial = _WINDOW
        self._windows: dict[int, int] = defaultdict(int)  # what came beside the initial size, less what was sent
        if speak:
            try:
                self.socket.sendall(PREFACE)
                self.send(SETTINGS, 0, 0, b"")
            except OSError:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Sends any frame."""
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
        self.socket.sendall(head + payload)

    def open(
        self, path: str | bytes, headers: Iterable[tuple[bytes, bytes]] = (), *, end: bool = False, timeout: str = ""
    ) -> int:
        """Sends a call's headers and returns its stream; `timeout` is gRPC's, such as "5S"."""
        stream, self._next = self._next, self._next + 2
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", path if isinstance(path, bytes) else path.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *([(b"grpc-timeout", timeout.encode())] if timeout else []),
            *headers,
        ]
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        self.send(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)
        return stream

    def message(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """Sends one whole message, without a look at the windows."""
        framed = b"\0" + struct.pack(">I", len(body)) + body
        for start in range(0, len(framed), _MAX_FRAME):
            last = start + _MAX_FRAME >= len(framed)
            self._data(stream, framed[start : start + _MAX_FRAME], END_STREAM if end and last else 0)

    def announce(self, stream: int, size: int, *, compressed: bool = False) -> None:
        """Sends the prefix of a message of this size, and no byte of it."""
        self._data(stream, bytes([compressed]) + struct.pack(">I", size))

    def fill(self, wanted: Mapping[int, int], *, idle: float = 0.5) -> int:
        """Sends zeros on these streams as the server's windows allow, until it gives no more for `idle` seconds.

        `wanted` is how many bytes at most on each. Returns how many were sent in all.
        """
        left, total = dict(wanted), 0
        while left and not self.closed:
            sent = 0
            for stream in [stream for stream in left if stream not in self.ended]:
                amount = min(left[stream], self._room(stream))
                if amount > 0:
                    self._data(stream, bytes(amount))
                    sent += amount
                    left[stream] -= amount
            total += sent
            left = {stream: rest for stream, rest in left.items() if rest and stream not in self.ended}
            if not self.receive(0 if sent else idle) and not sent:
                break
        return total

    def pour(self, stream: int, data: bytes, *, idle: float = 0.5) -> int:
        """Sends these bytes as the server's windows allow; returns how many it took."""
        sent = 0
        while sent < len(data) and stream not in self.ended and not self.closed:
            if (amount := min(len(data) - sent, self._room(stream))) > 0:
                self._data(stream, data[sent : sent + amount])
                sent += amount
            elif not self.receive(idle):
                break
        return sent

    def _room(self, stream: int) -> int:
        return min(_MAX_FRAME, self._initial + self._windows[stream], self._connection_window)

    def receive(self, seconds: float = 1.0) -> list[Frame]:
        """The frames that come within this time; returns with the first ones. Empty when none came or it is closed."""
        frames: list[Frame] = []
        self.socket.settimeout(max(seconds, 0.001))
        while not self.closed:
            try:
                more = self.socket.recv(1 << 16)
            except (TimeoutError, ssl.SSLWantReadError):
                break
            except OSError:
                more = b""
            self.closed = not more
            self._buffer += more
            frames += self._parse()
            if frames:
                break
        self.socket.settimeout(10)
        for frame in frames:
            with contextlib.suppress(OSError):
                self._take(frame)
        return frames

    def wait_for_end(self, streams: set[int], seconds: float) -> set[int]:
        """Those of these streams that the server ended within this time; all of them if it closed the connection."""
        deadline = time.monotonic() + seconds
        while not self.closed and not streams <= self.ended and time.monotonic() < deadline:
            self.receive(0.1)
        return set(streams) if self.closed else streams & self.ended

    def _data(self, stream: int, payload: bytes, flags: int = 0) -> None:
        self._windows[stream] -= len(payload)
        self._connection_window -= len(payload)
        self.send(DATA, flags, stream, payload)

    def _parse(self) -> list[Frame]:
        frames = []
        while len(self._buffer) >= 9 and len(self._buffer) >= 9 + (size := int.from_bytes(self._buffer[:3], "big")):
            stream = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            frames.append(Frame(self._buffer[3], self._buffer[4], stream, self._buffer[9 : 9 + size]))
            self._buffer = self._buffer[9 + size :]
        return frames

    def _take(self, frame: Frame) -> None:
        if frame.kind == SETTINGS and not frame.flags & ACK:
            for number, value in struct.iter_unpack(">HI", frame.payload):
                if number == _INITIAL_WINDOW_SIZE:
                    self._initial = value
            self.send(SETTINGS, ACK, 0, b"")
        elif frame.kind == PING and not frame.flags & ACK:
            self.send(PING, ACK, 0, frame.payload)
        elif frame.kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">I", frame.payload)
            if frame.stream:
                self._windows[frame.stream] += more
            else:
                self._connection_window += more
        elif frame.kind == RST_STREAM or (frame.kind in {DATA, HEADERS} and frame.flags & END_STREAM):
            self.ended.add(frame.stream)


def _text(value: bytes) -> bytes:
    """A string literal of HPACK (RFC 7541 section 5.2), without Huffman coding."""
    length, out = len(value), b""
    if length < 0x7F:
        return bytes([length]) + value
    length -= 0x7F
    while length >= 0x80:
        out, length = out + bytes([length & 0x7F | 0x80]), length >> 7
    return b"\x7f" + out + bytes([length]) + value
