"""A worker's side of the line to its supervisor: one inherited socket, a JSON object a line.

The worker says twice a second how it stands, from its start to its end: a supervisor that hears nothing for long ends
it. While it loads, a thread says it, since nothing else runs then. It also says when it serves, or why it can't. The
supervisor asks for metrics, and for reloads. Where the line ends the supervisor is gone, and the worker must go too;
on Linux the kernel sees to that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.operating_system import end_with_parent
from livekit_auth_server.process.readiness import Condition, Readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEARTBEAT = 0.5  # seconds
_log = structlog.get_logger("livekit_auth_server")
_BACKLOG = 1024 * 1024  # bytes that wait for a supervisor which doesn't read; more is left out


@dataclass(slots=True)
class Control:
    """The line of worker number `worker`, on a socket that was inherited as `descriptor`. `gone`: the supervisor is."""

    descriptor: int
    worker: int
    gone: bool = False
    _writer: asyncio.StreamWriter | None = None
    _running: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """Ties this process to its supervisor, and says that it starts until `run`. Raises ConfigError."""
        end_with_parent()
        with self._line() as line:
            if _ended(line):
                raise ConfigError("worker", "its supervisor is gone")
        threading.Thread(target=self._say_starting, name="starting", daemon=True).start()

    async def run(
        self, condition: Condition, metrics: Callable[[], bytes], orders: Mapping[str, Callable[[], None]]
    ) -> None:
        """Answers the supervisor; returns when it is gone."""
        self._running.set()
        reader, self._writer = await asyncio.open_unix_connection(sock=self._line())
        beating = asyncio.create_task(self._beat(condition))
        try:
            with suppress(OSError):
                while message := await reader.readline():
                    order = message.strip().decode("ascii", "replace")
                    if order == "metrics":
                        self._say(lambda: {"metrics": metrics().decode()})
                    elif order in orders:
                        orders[order]()
            self.gone = True
        finally:
            beating.cancel()
            self._writer.close()

    def fail(self, error: ConfigError) -> None:
        """Says why this worker can't serve. For the end of the process: may wait."""
        message = orjson.dumps({"failed": {"where": error.where, "line": error.line, "message": error.message}})
        with self._line() as line, suppress(OSError):
            line.setblocking(True)
            line.sendall(message + b"\n")

    def _line(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.descriptor))

    def _say_starting(self) -> None:
        message = orjson.dumps(_standing(Condition())) + b"\n"
        with self._line() as line, suppress(OSError):
            line.sendall(message)
            while not self._running.wait(HEARTBEAT):
                line.sendall(message)

    async def _beat(self, condition: Condition) -> None:
        while True:
            self._say(lambda: _standing(condition))
            await asyncio.sleep(HEARTBEAT)

    def _say(self, message: Callable[[], dict[str, Any]]) -> None:
        """Says it, unless the supervisor is behind. What fails in making it costs this message, and not the line."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() >= _BACKLOG:
            return
        try:
            writer.write(orjson.dumps(message()) + b"\n")
        except Exception:  # noqa: BLE001 - a worker without its line would outlive its supervisor
            _log.exception("the supervisor can't be told")


def _standing(condition: Condition) -> dict[str, Any]:
    """What a heartbeat says. A check that fails is a reason, and no silence, which would end the worker."""
    try:
        state = condition.now()
    except Exception:  # noqa: BLE001 - a part's fault
        _log.exception("readiness can't be told")
        state = Readiness(("readiness can't be told; the log has the details",))
    return {"phase": condition.phase, "state": state.to_dict()}


def _ended(line: socket.socket) -> bool:
    """Whether the other end is closed."""
    try:
        return not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
