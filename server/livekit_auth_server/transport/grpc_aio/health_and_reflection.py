"""gRPC's own services, health and reflection, through the same edge as the service's methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.transport.grpc_aio.handlers import Answer, Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.service.admission import Admitted, CallContext
    from livekit_auth_server.transport.grpc_aio.handlers import Edge

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REFLECTION = reflection.SERVICE_NAME
_MAX_BYTES = 4096  # of a request: the name of a service, file or symbol
_MOST_REQUESTS, _MOST_SECONDS = 100, 30.0  # of one stream of reflection


class Health:
    """grpc.health.v1: Check for the whole server, "", and for each service.

    Watch isn't served: its calls last for ever and would use up those that all callers share. health.proto lets a
    server leave it out, and clients then call Check.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset({"", *services})
        self.serving = False

    def handlers(self, edge: Edge) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Its methods by path. Any caller with an identity may ask, whether the policy lists it or not."""
        return {
            f"/{HEALTH}/{name}": edge.unary(Endpoint(name, _MAX_BYTES, answer, open_to_all=True))
            for name, answer in (("Check", self._check), ("Watch", self._watch))
        }

    async def _check(self, _about: CallContext, _admitted: Admitted, data: bytes) -> bytes:
        try:
            request = health_pb2.HealthCheckRequest.FromString(data)
        except DecodeError:
            raise Refusal(Reason.REQUEST_MALFORMED, "the request isn't a grpc.health.v1.HealthCheckRequest") from None
        if request.service not in self._services:
            raise Answer(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        status = health_pb2.HealthCheckResponse
        answer: bytes = status(status=status.SERVING if self.serving else status.NOT_SERVING).SerializeToString()
        return answer

    async def _watch(self, _about: CallContext, _admitted: Admitted, _data: bytes) -> bytes:
        raise Answer(grpc.StatusCode.UNIMPLEMENTED, "call Check")


class Reflection:
    """grpc.reflection.v1alpha. Answers as grpcio's own servicer does; a stream is bounded in requests and time."""

    def __init__(self, services: Sequence[str]) -> None:
        self._answers = reflection.ReflectionServicer(services)

    def handlers(self, edge: Edge) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Its method by path."""
        name = "ServerReflectionInfo"
        handler = edge.stream(name, self._answer, max_bytes=_MAX_BYTES, most=_MOST_REQUESTS, seconds=_MOST_SECONDS)
        return {f"/{REFLECTION}/{name}": handler}

    def _answer(self, data: bytes) -> bytes:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError:
            message = "the request isn't a grpc.reflection.v1alpha.ServerReflectionRequest"
            raise Refusal(Reason.REQUEST_MALFORMED, message) from None
        (response,) = self._answers.ServerReflectionInfo(iter((request,)), None)
        answer: bytes = response.SerializeToString()
        return answer
