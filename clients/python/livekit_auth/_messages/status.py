"""Makes errors from gRPC statuses: those of failed RPCs, and those of batch entries.

A reason unknown to this version falls back to its gRPC code, as the contract requires. Whatever a server sends becomes
an AuthError.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from livekit_auth._messages.errors import (
    AuthError,
    Denied,
    Failure,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    ServerTooOld,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
    Violation,
    unusable,
)
from livekit_auth._messages.needed_server import explain
from livekit_auth.v1.auth_service_pb2 import IssueTokenRequest, VerifyTokenRequest, VerifyWebhookRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc
    from google.protobuf.duration_pb2 import Duration

DOMAIN = "livekit-auth"
"""The domain of each google.rpc.ErrorInfo that the server sends."""

MAX_RETRY_AFTER = timedelta(days=366)
"""A longer wait, or a negative one, is ignored."""

_STATUS_DETAILS = "grpc-status-details-bin"
_DetailT = TypeVar("_DetailT", bound=Message)

_BY_CODE: dict[str, type[AuthError]] = {
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotFound,
    "PERMISSION_DENIED": Denied,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
    "UNIMPLEMENTED": ServerTooOld,
}

_VERIFYING = (VerifyTokenRequest, VerifyWebhookRequest)


def to_error(source: grpc.RpcError | Status, request: type[Message] = IssueTokenRequest) -> AuthError:
    """The error for a failed RPC, or for the status of a batch entry. `request` is the message that was answered."""
    failure = _read(source if isinstance(source, Status) else _status_of(source))
    kind = _kind(failure, request)
    if kind is ServerTooOld:
        failure = replace(failure, message=explain(failure, request))
    return kind(failure)


def _kind(failure: Failure, request: type[Message]) -> type[AuthError]:
    """The class of an error: that of its code, but for three cases."""
    match failure.code, failure.reason:
        case "INVALID_ARGUMENT", "FIELD_UNKNOWN":
            return ServerTooOld
        # What a method that verifies finds invalid is the token or webhook, unless the reason names the request.
        case "INVALID_ARGUMENT", reason if reason and request in _VERIFYING and not reason.startswith("REQUEST_"):
            return VerificationFailed
        # gRPC's own limit of a message's size, which has the code of a rate limit.
        case "RESOURCE_EXHAUSTED", "" if "larger than max" in failure.message:
            return InvalidRequest
        case code, _:
            return _BY_CODE.get(code, ServerError)


def to_timedelta(duration: Duration) -> timedelta:
    """Converts a duration, to the microsecond. Raises ServerError if it is out of range."""
    try:
        return duration.ToTimedelta()
    except (OverflowError, ValueError):
        raise unusable("a duration out of range") from None


def _status_of(error: grpc.RpcError) -> Status:
    """The google.rpc.Status of a failed RPC, or one made from its code and details if it has none."""
    code: int = error.code().value[0]
    # The stubs don't say that this may be None, or that the items of both clients unpack.
    trailing = cast("Iterable[tuple[str, str | bytes]] | None", error.trailing_metadata())
    for key, value in trailing or ():
        if key == _STATUS_DETAILS and isinstance(value, bytes):
            try:
                status = Status.FromString(value)
            except DecodeError:
                continue
            if status.code == code:
                return status
    return Status(code=code, message=_explain(error))


def _explain(error: grpc.RpcError) -> str:
    """The message for an error that gRPC itself raised: most often there was no connection."""
    details = error.details() or "no details"
    match error.code().name:
        case "UNAVAILABLE":
            # A certificate refused under TLS 1.3 looks like a lost connection, so this can't name the cause.
            return (
                "can't reach the server, or the TLS handshake failed: "
                f"check the address, the CA and the client certificate ({details})"
            )
        case "DEADLINE_EXCEEDED":
            return f"no response from the server in time ({details})"
        case _:
            return details


def _read(status: Status) -> Failure:
    info = _detail(status, ErrorInfo)
    known = info is not None and info.domain == DOMAIN
    bad_request = _detail(status, BadRequest)
    retry = _detail(status, RetryInfo)
    return Failure(
        code=Code.Name(status.code) if status.code and status.code in Code.values() else "UNKNOWN",
        message=status.message or "the server gave no message",
        reason=info.reason if info and known else "",
        metadata=dict(info.metadata) if info and known else {},
        violations=tuple(Violation(v.field, v.description) for v in bad_request.field_violations)
        if bad_request
        else (),
        retry_after=_retry_after(retry.retry_delay) if retry else None,
    )


def _retry_after(delay: Duration) -> timedelta | None:
    try:
        wait = to_timedelta(delay)
    except ServerError:
        return None
    return wait if timedelta(0) <= wait <= MAX_RETRY_AFTER else None


def _detail(status: Status, kind: type[_DetailT]) -> _DetailT | None:
    """The first detail of a kind; one that doesn't parse is treated as absent."""
    for packed in status.details:
        if packed.TypeName() == kind.DESCRIPTOR.full_name:
            try:
                return kind.FromString(packed.value)
            except DecodeError:
                return None
    return None
