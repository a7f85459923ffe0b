"""A worker's side of the line to its supervisor: one inherited socket, a JSON object a line.

The worker says when it serves, or why it can't, and twice a second how it stands. The supervisor asks for metrics, and
for reloads. Where the line ends the supervisor is gone, and the worker must go too.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from livekit_auth_server.adapters.readiness import Condition
    from livekit_auth_server.adapters.yaml_file import ConfigError

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

    async def run(
        self, condition: Condition, metrics: Callable[[], bytes], orders: Mapping[str, Callable[[], None]]
    ) -> None:
        """Answers the supervisor; returns when it is gone."""
        line = socket.socket(fileno=os.dup(self.descriptor))
        reader, self._writer = await asyncio.open_unix_connection(sock=line)
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
        with socket.socket(fileno=os.dup(self.descriptor)) as line, suppress(OSError):
            line.setblocking(True)
            line.sendall(message + b"\n")

    async def _beat(self, condition: Condition) -> None:
        while True:
            self._say(lambda: {"phase": condition.phase, "state": condition.now().to_dict()})
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
