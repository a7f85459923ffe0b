"""A worker's side of the line to its supervisor, an inherited socket. The messages: supervisor/protocol.py.

The worker sends a heartbeat twice a second, from its start to its end: a supervisor that hears nothing for long kills
it. While the worker loads, a thread sends them, since nothing else runs then. When the line ends the supervisor is
gone, and the worker must stop too; on Linux the kernel sees to that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.operating_system import end_with_parent
from livekit_auth_server.process.readiness import Condition, Readiness
from livekit_auth_server.supervisor.protocol import (
    HEARTBEAT,
    Failed,
    Heartbeat,
    Message,
    MetricsPage,
    Order,
    decode_order,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("livekit_auth_server")
_BACKLOG = 1024 * 1024  # bytes that wait for a supervisor which doesn't read; more is left out


@dataclass(slots=True)
class SupervisorLine:
    """The line of worker number `worker`, on the inherited socket `descriptor`. `gone`: the supervisor has ended."""

    descriptor: int
    worker: int
    gone: bool = False
    _writer: asyncio.StreamWriter | None = None
    _running: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """Ties this process to its supervisor, and sends heartbeats until `run` does. Raises ConfigError."""
        end_with_parent()
        with self._line() as line:
            if _ended(line):
                raise ConfigError("worker", "its supervisor is gone")
        threading.Thread(target=self._send_starting, name="starting", daemon=True).start()

    async def run(self, condition: Condition, metrics: Callable[[], bytes], reload: Callable[[], None]) -> None:
        """Obeys the supervisor; returns when it is gone. An order of another release is left out."""
        self._running.set()
        reader, self._writer = await asyncio.open_unix_connection(sock=self._line())
        beating = asyncio.create_task(self._beat(condition))
        try:
            with suppress(OSError):
                while line := await reader.readline():
                    order = decode_order(line)
                    if order is Order.METRICS:
                        self._send(lambda: MetricsPage(metrics().decode()))
                    elif order is Order.RELOAD:
                        reload()
            self.gone = True
        finally:
            beating.cancel()
            self._writer.close()

    def fail(self, error: ConfigError) -> None:
        """Says why this worker can't serve. For the end of the process: may wait."""
        with self._line() as line, suppress(OSError):
            line.setblocking(True)
            line.sendall(encode(Failed.of(error)))

    def _line(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.descriptor))

    def _send_starting(self) -> None:
        message = encode(_heartbeat(Condition()))
        with self._line() as line, suppress(OSError):
            line.sendall(message)
            while not self._running.wait(HEARTBEAT):
                line.sendall(message)

    async def _beat(self, condition: Condition) -> None:
        while True:
            self._send(lambda: _heartbeat(condition))
            await asyncio.sleep(HEARTBEAT)

    def _send(self, message: Callable[[], Message]) -> None:
        """Sends it, unless the supervisor is behind. A fault in making it costs this message, and not the line."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() >= _BACKLOG:
            return
        try:
            writer.write(encode(message()))
        except Exception:  # noqa: BLE001 - a worker without its line would outlive its supervisor
            _log.exception("message to the supervisor failed")


def _heartbeat(condition: Condition) -> Heartbeat:
    """A check that fails becomes a reason: without a heartbeat the worker would be killed."""
    try:
        state = condition.now()
    except Exception:  # noqa: BLE001 - a part's fault
        _log.exception("readiness check failed")
        state = Readiness(("readiness check failed; the log has the details",))
    return Heartbeat(condition.phase, state)


def _ended(line: socket.socket) -> bool:
    """Whether the other end is closed."""
    try:
        return not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
