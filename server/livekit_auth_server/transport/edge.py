"""One gRPC call: the peer's certificates in, the handler's bytes or a rich status out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.calls import CallContext
from livekit_auth_server.service.status import CODE_OF, to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from livekit_auth_server.service.calls import Calls, Method, OpenMethod

_CODES = {reason: grpc.StatusCode[code] for reason, code in CODE_OF.items()}
_DETAILS = "grpc-status-details-bin"


def handlers(
    service: str, methods: Sequence[Method[Any, Any] | OpenMethod[Any, Any]], calls: Calls
) -> grpc.GenericRpcHandler:
    """The methods as gRPC serves them: no (de)serialiser, since bytes are the service's own business."""
    return grpc.method_handlers_generic_handler(
        service, {method.name: grpc.unary_unary_rpc_method_handler(_behaviour(method, calls)) for method in methods}
    )


def _behaviour(
    method: Method[Any, Any] | OpenMethod[Any, Any], calls: Calls
) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    async def behave(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:  # noqa: RET503 - abort raises
        try:
            return await calls.run(method, _context(context), request)
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
    traceparent = ""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            traceparent = value
    return CallContext(
        leaf_pem=leaf[0] if leaf else b"",
        chain_pem=chain[0] if chain else b"",
        peer=context.peer(),
        traceparent=traceparent,
    )
