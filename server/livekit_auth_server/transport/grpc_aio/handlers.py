"""One gRPC call: the peer's certificates in, the handler's bytes or a rich status out.

Guarantees: every method, health and reflection too, is served through the same admission, places and bytes; nothing of
a request is read for a peer without an acceptable identity, or for one that the policy doesn't list where the method
needs that; every refusal is told to the observer.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc

from livekit_auth_server.core.refusal import Overload, Reason, Refusal, overloaded
from livekit_auth_server.service.admission import CallContext
from livekit_auth_server.service.calls import internal, log_fault
from livekit_auth_server.service.status import CODE_OF, to_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from livekit_auth_server.service.admission import Admitted
    from livekit_auth_server.service.calls import Calls
    from livekit_auth_server.service.method import Served
    from livekit_auth_server.transport.grpc_aio.connections import Connections
    from livekit_auth_server.transport.grpc_aio.gate import Gate, Place

    Context = grpc.aio.ServicerContext[bytes, bytes]

_CODES = {reason: grpc.StatusCode[code] for reason, code in CODE_OF.items()}
REQUEST_TIMEOUT = 10  # seconds in which a request comes, once there is room for it
UNLISTED_TIMEOUT = 3  # likewise for callers that the policy doesn't list
_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
_HEADERS = frozenset({"traceparent", "tracestate", "user-agent"})


class Answer(Exception):  # noqa: N818 - no error of the server's
    """A gRPC status that isn't one of the service's refusals."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method as the edge serves it. `open_to_all` is for callers that the policy doesn't list, too."""

    name: str
    max_bytes: int
    answer: Callable[[CallContext, Admitted, bytes], Awaitable[bytes]]
    open_to_all: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """What all methods share. `message` is the size in bytes up to which C-core assembles a message of any method."""

    calls: Calls
    gate: Gate
    connections: Connections
    message: int

    def methods(self, service: str, handlers: Sequence[Served]) -> dict[str, Any]:
        """The service's methods as gRPC serves them, by path."""
        return {f"/{service}/{one.method.name}": self.unary(_endpoint(one, self.calls)) for one in handlers}

    def unary(self, endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
        """A method with one request. It is registered as taking a stream, which looks the same to clients.

        gRPC would wait for a unary request without an end, and there is no (de)serialiser, since bytes are the
        service's own business.
        """

        async def behave(_stream: object, context: Context) -> bytes:  # noqa: RET503 - abort raises
            try:
                about, admitted, place = self._admit(endpoint.name, context)
                with place:
                    try:
                        data = await self._request(endpoint, admitted, place, context)
                    except Refusal as refusal:
                        self.calls.turned_away(endpoint.name, about, refusal, admitted)
                        raise
                    return await endpoint.answer(about, admitted, data)
            except Exception as failure:  # noqa: BLE001 - the error boundary
                status = _status(failure, context)
            # Out here, so that abort's exception doesn't keep the refusal's frames alive, and with them the request.
            await context.abort(*status)

        return grpc.stream_unary_rpc_method_handler(behave)

    def stream(
        self, name: str, answer: Callable[[bytes], bytes], *, max_bytes: int, most: int, seconds: float
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A method that answers each of at most `most` requests, in at most `seconds` altogether."""
        endpoint = Endpoint(name, max_bytes, _never, open_to_all=True)

        async def behave(_stream: object, context: Context) -> AsyncIterator[bytes]:
            try:
                about, admitted, place = self._admit(name, context)
                with place:
                    try:
                        async with asyncio.timeout(seconds):
                            for _ in range(most):
                                data = await self._message(endpoint, admitted, place, context)
                                if data is None:
                                    return
                                yield answer(data)
                    except Refusal as refusal:
                        self.calls.turned_away(name, about, refusal, admitted)
                        raise
                status = _status(_stream_over(f"has at most {most} requests"), context)
            except TimeoutError:
                status = _status(_stream_over(f"lasts at most {seconds:.0f} s"), context)
            except Exception as failure:  # noqa: BLE001 - the error boundary
                status = _status(failure, context)
            await context.abort(*status)

        return grpc.stream_stream_rpc_method_handler(behave)

    def _admit(self, name: str, context: Context) -> tuple[CallContext, Admitted, Place]:
        """Who calls, and a place for the call. Raises Refusal, which the observer has been told."""
        about, version = _context(context)
        admitted = None
        try:
            _require_tls13(version)
            admitted = self.calls.admit(about)
            self.connections.called(about.peer, admitted.owner)
            return about, admitted, self.gate.enter(admitted.owner)
        except Refusal as refusal:
            if admitted is None and refusal.reason is not Reason.OVERLOADED:
                self.connections.refused(about.peer)
            self.calls.turned_away(name, about, refusal, admitted)
            raise

    async def _request(self, endpoint: Endpoint, admitted: Admitted, place: Place, context: Context) -> bytes:
        """The call's one message, empty where nobody will look at it.

        Raises REQUEST_MALFORMED when there is none, or more, or none in time; REQUEST_INVALID when it is too large;
        OVERLOADED when other requests left it no room.
        """
        if not admitted.listed and not endpoint.open_to_all:
            return b""
        request = await self._message(endpoint, admitted, place, context, last=True)
        if request is None:
            raise Refusal(Reason.REQUEST_MALFORMED, "a call has one request message")
        return request

    async def _message(
        self, endpoint: Endpoint, admitted: Admitted, place: Place, context: Context, *, last: bool = False
    ) -> bytes | None:
        """The next message, None at the end of the stream. With `last`, nothing may come after it.

        C-core knows one limit for the messages of all methods, and assembles what comes up to it as soon as a read
        begins. So that much is reserved first, beside the message that was read when the end is waited for.
        """
        seconds = REQUEST_TIMEOUT if admitted.listed else UNLISTED_TIMEOUT
        await place.reserve(self.message + endpoint.max_bytes)
        try:
            async with asyncio.timeout(seconds) as timeout:
                place.reading(timeout)
                request: object = await context.read()
                if not isinstance(request, bytes):
                    return None
                if len(request) > endpoint.max_bytes:
                    message = f"{len(request)} bytes are over this request's limit of {endpoint.max_bytes}"
                    raise Refusal(Reason.REQUEST_INVALID, message)
                after: object = await context.read() if last else grpc.aio.EOF
                if after is not grpc.aio.EOF:
                    return None
        except TimeoutError:
            if not place.displaced:
                raise Refusal(Reason.REQUEST_MALFORMED, f"no request came within {seconds} s") from None
            message = "the request came too slowly while others waited"
            raise overloaded(Overload.SLOW_REQUEST, message) from None
        place.keep(len(request))
        return request


def _endpoint(served: Served, calls: Calls) -> Endpoint:
    async def answer(about: CallContext, admitted: Admitted, data: bytes) -> bytes:
        return await calls.run(served, about, data, admitted)

    method = served.method
    return Endpoint(method.name, method.max_bytes, answer, open_to_all=method.open_to_all)


async def _never(_about: CallContext, _admitted: Admitted, _data: bytes) -> bytes:
    raise NotImplementedError


def _stream_over(bound: str) -> Answer:
    return Answer(grpc.StatusCode.UNAVAILABLE, f"a stream {bound}: open another")


def _status(failure: Exception, context: Context) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes | str], ...]]:
    """As context.abort takes it. What isn't meant for a caller is logged, and says nothing of its cause."""
    if isinstance(failure, Answer):
        return failure.code, failure.message, ()
    if not isinstance(failure, Refusal):
        log_fault("unexpected fault")
        failure = internal()
    trailers: list[tuple[str, bytes | str]] = [(_DETAILS, to_status(failure).SerializeToString())]
    if failure.retry_after is not None:
        trailers.append((_PUSHBACK, _pushback(failure.retry_after, context.time_remaining())))
    return _CODES[failure.reason], failure.message, tuple(trailers)


def _pushback(wait: float, left: float | None) -> str:
    """Milliseconds that gRPC's own retry waits (gRFC A6).

    A negative number means no retry: if the caller's deadline comes first, it gets the refusal and its reason now, and
    not DEADLINE_EXCEEDED after a wait that was for nothing.
    """
    return "-1" if left is not None and wait >= left else str(math.ceil(wait * 1000))


def _require_tls13(version: Sequence[bytes] | None) -> None:
    if version != [b"TLSv1.3"]:
        raise Refusal(Reason.TLS_VERSION_UNSUPPORTED, "connect with TLS 1.3")


def _context(context: Context) -> tuple[CallContext, Sequence[bytes] | None]:
    """What the transport knows of the call, and its TLS version.

    Of the peer's certificates only the PEM form counts, never the decoded strings beside it: those stop at NUL and
    merge the types of subject alternative names.
    """
    peer = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    leaf, chain = peer.get("x509_pem_cert"), peer.get("x509_pem_cert_chain")
    headers: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if key in _HEADERS and isinstance(value, str):
            # Several of one name are a list (RFC 9110 section 5.3), as tracestate may be.
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    about = CallContext(
        leaf_pem=leaf[0] if leaf else b"",
        chain_pem=chain[0] if chain else b"",
        peer=context.peer(),
        traceparent=headers.get("traceparent", ""),
        tracestate=headers.get("tracestate", ""),
        user_agent=headers.get("user-agent", ""),
    )
    return about, peer.get("ssl_tls_version")
