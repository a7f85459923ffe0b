"""The gRPC server: bounded in every direction, drained before it stops.

The numbers and their reasons: docs/adr/0003-transport-limits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from livekit_auth_server.service.methods import SERVICE
from livekit_auth_server.transport.edge import handlers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.service.calls import Calls, Method, OpenMethod

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients can make the server hold. Sizes are in bytes, times in seconds."""

    message: int = 4 * _KIB * _KIB
    metadata: int = 8 * _KIB
    connections: int = 2000
    streams_per_connection: int = 100
    concurrent_calls: int = 4000
    handshake: float = 3.0
    connection_idle: float = 600.0
    connection_age: float = 3600.0
    connection_age_grace: float = 30.0

    def options(self) -> list[tuple[str, int]]:
        """As gRPC's channel arguments."""
        return [
            ("grpc.max_receive_message_length", self.message),
            ("grpc.max_send_message_length", self.message),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", 2 * self.metadata),
            ("grpc.max_allowed_incoming_connections", self.connections),
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


class _Health(health_aio.HealthServicer):  # type: ignore[misc]  # untyped
    """Health without Watch, whose calls last for ever and would use up those that all callers share."""

    async def Watch(self, _request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        """Refused; health.proto lets a server leave it out, and clients then call Check."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "call Check")


class Server:
    """Serves the methods on one address until `stop`."""

    def __init__(
        self,
        methods: Sequence[Method[Any, Any] | OpenMethod[Any, Any]],
        calls: Calls,
        limits: Limits,
        *,
        reflect: bool,
        share_port: bool = False,
    ) -> None:
        options = [*limits.options(), ("grpc.so_reuseport", int(share_port))]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=limits.concurrent_calls)
        self._server.add_generic_rpc_handlers((handlers(SERVICE, methods, calls, limits.concurrent_calls),))
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflect:
            names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Binds "HOST:PORT" and serves; returns the port. Raises OSError when the address can't be had."""
        try:
            port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: in use, or not this machine's") from error
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace: float) -> None:
        """Reports NOT_SERVING, refuses new calls and gives those in flight `grace` seconds to finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
