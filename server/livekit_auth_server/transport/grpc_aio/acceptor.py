"""Calls from C-core to the handlers, without grpc.aio's own loop between.

grpc.aio decodes a call's path as UTF-8 in the loop that accepts calls: one call whose path isn't UTF-8 ends that loop,
and nothing is served any more. Here every known method is registered with C-core, which compares bytes, and what it
doesn't know is answered without a look at its name. grpc.aio has no public way to do this; `Acceptor` refuses to start
where the parts of it that this needs are missing. See docs/adr/0017-what-a-client-can-hold.md.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # untyped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEEDED = ("_make_request_call_future", "_request_call", "_request_registered_call")
_UNKNOWN = "an unknown method"
_respond_once = cygrpc._handle_stream_unary_rpc  # noqa: SLF001 - grpc.aio's own, see above
_respond_often = cygrpc._handle_stream_stream_rpc  # noqa: SLF001
_schedule = cygrpc._schedule_rpc_coro  # noqa: SLF001


async def _unknown(_stream: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")


class Acceptor(cygrpc.AioServer):  # type: ignore[misc]  # untyped
    """A gRPC server for exactly these handlers, by "/service/Method"; all take a stream of bytes."""

    def __new__(cls, *_: object) -> Self:
        """Raises RuntimeError for a grpcio that this doesn't fit."""
        missing = [name for name in _NEEDED if not hasattr(cygrpc.AioServer, name)]
        if missing:
            raise RuntimeError(f"this version of grpcio can't be used: it lacks {', '.join(missing)}")
        return super().__new__(cls)  # type: ignore[no-any-return]

    def __init__(
        self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]], options: Sequence[tuple[str, int]]
    ) -> None:
        super().__init__(asyncio.get_running_loop(), None, (), (), tuple(options), None)
        self._handlers = {name.encode(): handler for name, handler in handlers.items()}
        self._calls: set[asyncio.Task[None]] = set()
        self.add_registered_method_handlers(dict(handlers))

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[None]:
        """Called by the base class once for each method, and once with None for all unknown ones."""
        return asyncio.get_running_loop().create_task(self._accept(method))

    async def _accept(self, method: bytes | None) -> None:
        """Accepts calls until the server stops, which C-core tells by an error that the base class expects."""
        loop = asyncio.get_running_loop()
        handler = self._handlers[method] if method is not None else grpc.stream_unary_rpc_method_handler(_unknown)
        name = method.decode() if method is not None else _UNKNOWN
        respond = _respond_often if handler.response_streaming else _respond_once
        while True:
            state = await (self._request_registered_call(method) if method is not None else self._request_call())
            call = loop.create_task(_schedule(respond(handler, state, loop), state, loop, name))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
