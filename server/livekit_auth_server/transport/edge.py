"""One gRPC call: the peer's certificates in, the handler's bytes or a rich status out."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import grpc

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.calls import CallContext
from livekit_auth_server.service.status import CODE_OF, to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from livekit_auth_server.service.calls import Calls, Method, OpenMethod

_CODES = {reason: grpc.StatusCode[code] for reason, code in CODE_OF.items()}
REQUEST_TIMEOUT = 10  # seconds from a call's headers to the end of its request
_DETAILS = "grpc-status-details-bin"
_HEADERS = frozenset({"traceparent", "tracestate", "user-agent"})


def handlers(
    service: str, methods: Sequence[Method[Any, Any] | OpenMethod[Any, Any]], calls: Calls, concurrent: int
) -> grpc.GenericRpcHandler:
    """The methods as gRPC serves them: no (de)serialiser, since bytes are the service's own business.

    They are registered as taking a stream, which looks the same to clients: gRPC would wait for a unary request without
    an end, and calls that never send one would use up all of `concurrent`.
    """
    shares = Shares(max(1, concurrent // 4))
    return grpc.method_handlers_generic_handler(
        service,
        {method.name: grpc.stream_unary_rpc_method_handler(_behaviour(method, calls, shares)) for method in methods},
    )


@dataclass(slots=True)
class Shares:
    """How many calls each certificate has in flight, at most `most`: one caller can't use up what all need."""

    most: int
    _in_flight: dict[bytes, int] = field(default_factory=dict)

    @contextmanager
    def of(self, leaf_pem: bytes) -> Iterator[None]:
        """Counts a call while it lasts. Raises RATE_LIMITED."""
        count = self._in_flight.get(leaf_pem, 0)
        if count >= self.most:
            raise Refusal(Reason.RATE_LIMITED, f"you have {count} calls in flight, the most that one caller may have")
        self._in_flight[leaf_pem] = count + 1
        try:
            yield
        finally:
            if (left := self._in_flight[leaf_pem] - 1) > 0:
                self._in_flight[leaf_pem] = left
            else:
                del self._in_flight[leaf_pem]


async def _request(context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """The call's one message. Raises MALFORMED_REQUEST when there is none, or more, or none in time."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            request: object = await context.read()
            after: object = await context.read() if isinstance(request, bytes) else None
    except TimeoutError:
        raise Refusal(Reason.MALFORMED_REQUEST, f"no request came within {REQUEST_TIMEOUT} s") from None
    if not isinstance(request, bytes) or after is not grpc.aio.EOF:
        raise Refusal(Reason.MALFORMED_REQUEST, "a call has one request message")
    return request


def _behaviour(
    method: Method[Any, Any] | OpenMethod[Any, Any], calls: Calls, shares: Shares
) -> Callable[[object, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    async def behave(_stream: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:  # noqa: RET503 - abort raises
        try:
            about = _context(context)
            with shares.of(about.leaf_pem):
                return await calls.run(method, about, await _request(context))
        except Refusal as refusal:
            code, message = _CODES[refusal.reason], refusal.message
            details = ((_DETAILS, to_status(refusal).SerializeToString()),)
        # Out here, so that abort's exception doesn't keep the refusal's frames alive, and with them the whole request.
        await context.abort(code, message, details)

    return behave


def _context(context: grpc.aio.ServicerContext[bytes, bytes]) -> CallContext:
    """What the transport knows of the call.

    Of the peer's certificates only the PEM form counts, never the decoded strings beside it: those stop at NUL and
    merge the types of subject alternative names.
    """
    peer = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    if peer.get("ssl_tls_version") != [b"TLSv1.3"]:
        raise Refusal(Reason.TLS_VERSION, "connect with TLS 1.3")
    leaf, chain = peer.get("x509_pem_cert"), peer.get("x509_pem_cert_chain")
    headers: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if key in _HEADERS and isinstance(value, str):
            # Several of one name are a list (RFC 9110 section 5.3), as tracestate may be.
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    return CallContext(
        leaf_pem=leaf[0] if leaf else b"",
        chain_pem=chain[0] if chain else b"",
        peer=context.peer(),
        traceparent=headers.get("traceparent", ""),
        tracestate=headers.get("tracestate", ""),
        user_agent=headers.get("user-agent", ""),
    )
