"""The gRPC server: bounded in every direction, drained before it stops.

The numbers and their reasons: docs/adr/0003-transport-limits.md, docs/adr/0017-what-a-client-can-hold.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.service.methods import METHODS, SERVICE
from livekit_auth_server.transport.grpc_aio.acceptor import Acceptor
from livekit_auth_server.transport.grpc_aio.connections import Connections
from livekit_auth_server.transport.grpc_aio.gate import Gate
from livekit_auth_server.transport.grpc_aio.handlers import Edge
from livekit_auth_server.transport.grpc_aio.health_and_reflection import HEALTH, REFLECTION, Health, Reflection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

    from livekit_auth_server.service.calls import Calls
    from livekit_auth_server.service.method import Served

_KIB = 1024
_NO_PORT = "can't listen on {}: in use, or not this machine's"
_MESSAGE = max(method.max_bytes for method in METHODS)  # bytes; each method's own bound is checked on its message
_WINDOW = 16 * _KIB  # bytes of a request that C-core takes before anybody asks for them


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients can make the server hold: sizes in bytes, times in seconds. config has the defaults."""

    metadata: int
    connections: int
    streams_per_connection: int
    concurrent_calls: int
    handshake: float
    request_bytes: int
    first_call: float
    connection_idle: float
    connection_age: float
    connection_age_grace: float

    def options(self) -> list[tuple[str, int]]:
        """As gRPC's channel arguments."""
        return [
            ("grpc.max_receive_message_length", _MESSAGE),
            ("grpc.max_send_message_length", _MESSAGE),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", 2 * self.metadata),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.http2.bdp_probe", 0),  # the windows stay as they are
            ("grpc.http2.lookahead_bytes", _WINDOW),
            ("grpc.max_concurrent_streams", self.streams_per_connection),
            # Without it, clients that queue behind the bound on streams get RST_STREAM and UNAVAILABLE.
            ("grpc.http2.max_deallocating_streams", self.streams_per_connection),
            ("grpc.server_handshake_timeout_ms", int(self.handshake * 1000)),
            ("grpc.max_connection_idle_ms", int(self.connection_idle * 1000)),
            ("grpc.max_connection_age_ms", int(self.connection_age * 1000)),
            ("grpc.max_connection_age_grace_ms", int(self.connection_age_grace * 1000)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
            ("grpc.http2.max_ping_strikes", 3),
            ("grpc.enable_retries", 0),
        ]


class Server:
    """Serves the methods on one address until `stop`."""

    def __init__(  # noqa: PLR0913 - what wiring knows
        self,
        served: Sequence[Served],
        calls: Calls,
        limits: Limits,
        *,
        reflect: bool,
        share_port: bool = False,
        accepted: Callable[[], int] = lambda: 0,
        tell: Callable[[str, int], None] = lambda _event, _count: None,
    ) -> None:
        """`accepted` is how many handshakes began so far; `tell` is told what became of how many connections."""
        self._connections = Connections(limits.connections, limits.first_call, accepted, tell)
        edge = Edge(calls, Gate(limits.concurrent_calls, limits.request_bytes), self._connections, _MESSAGE)
        self._health = Health((SERVICE,))
        handlers = edge.methods(SERVICE, served) | self._health.handlers(edge)
        if reflect:
            handlers |= Reflection((SERVICE, HEALTH, REFLECTION)).handlers(edge)
        self._server = Acceptor(handlers, [*limits.options(), ("grpc.so_reuseport", int(share_port))])
        self._watching: asyncio.Task[None] | None = None

    async def start(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Binds "HOST:PORT" and serves; returns the port. Raises OSError when the address can't be had."""
        try:
            port: int = self._server.add_secure_port(address.encode(), credentials)
        except RuntimeError as error:
            raise OSError(_NO_PORT.format(address)) from error
        if port == 0:
            raise OSError(_NO_PORT.format(address))
        await self._server.start()
        self._watching = asyncio.create_task(self._connections.watch(port))
        self._health.serving = True
        return port

    async def stop(self, grace: float) -> None:
        """Reports NOT_SERVING, refuses new calls and gives those in flight `grace` seconds to finish."""
        self._health.serving = False
        await self._server.shutdown(grace)
        if self._watching is not None:
            self._watching.cancel()
