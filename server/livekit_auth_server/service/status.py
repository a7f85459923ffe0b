"""Refusals as google.rpc.Status: the one place where a reason gets its code and its details."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from livekit_auth_server.core.refusal import Reason

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from livekit_auth_server.core.refusal import Refusal

DOMAIN = "livekit-auth"

_CODES = {
    "UNAUTHENTICATED": (
        Reason.CERTIFICATE_INVALID,
        Reason.CERTIFICATE_EXPIRED,
        Reason.TLS_VERSION_UNSUPPORTED,
        Reason.CERTIFICATE_REVOKED,
    ),
    "PERMISSION_DENIED": (
        Reason.CALLER_NOT_LISTED,
        Reason.PROJECT_NOT_PERMITTED,
        Reason.ROLE_NOT_PERMITTED,
        Reason.GRANT_NOT_PERMITTED,
        Reason.POWER_NOT_PERMITTED,
        Reason.ROOM_NOT_PERMITTED,
        Reason.IDENTITY_NOT_PERMITTED,
        Reason.TTL_NOT_PERMITTED,
    ),
    "INVALID_ARGUMENT": (
        Reason.REQUEST_MALFORMED,
        Reason.FIELD_UNKNOWN,
        Reason.REQUEST_INVALID,
        Reason.PROJECT_REQUIRED,
        Reason.RESPONSE_TOO_LARGE,
        Reason.BATCH_EXCEEDS_LIMIT,
        Reason.PAGE_TOKEN_INVALID,
        Reason.TOKEN_MALFORMED,
        Reason.KEY_UNKNOWN,
        Reason.SIGNATURE_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.NOT_A_WEBHOOK_TOKEN,
        Reason.NOT_AN_ACCESS_TOKEN,
        Reason.BODY_ALTERED,
        Reason.BODY_TOO_LARGE,
        Reason.BODY_NOT_JSON,
    ),
    "NOT_FOUND": (Reason.DECISION_NOT_FOUND,),
    "FAILED_PRECONDITION": (Reason.SIGNING_KEY_MISSING, Reason.SELFCHECK_FAILED),
    "RESOURCE_EXHAUSTED": (Reason.RATE_LIMITED,),
    "UNAVAILABLE": (
        Reason.OVERLOADED,
        Reason.AUDIT_UNAVAILABLE,
        Reason.ACK_STORE_UNAVAILABLE,
        Reason.LIMITS_UNAVAILABLE,
    ),
    "INTERNAL": (Reason.INTERNAL,),
}
CODE_OF = {reason: code for code, reasons in _CODES.items() for reason in reasons}


def to_status(refusal: Refusal) -> status_pb2.Status:
    """The refusal as it goes to the caller (AIP-193)."""
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=refusal.metadata)
    details: list[Message] = [info]
    if refusal.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in refusal.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if refusal.retry_after is not None:
        seconds, milliseconds = divmod(round(refusal.retry_after * 1000), 1000)
        delay = Duration(seconds=seconds, nanos=milliseconds * 1_000_000)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_pb2.Code.Value(CODE_OF[refusal.reason]), message=refusal.message)
    status.details.extend(_packed(detail) for detail in details)
    return status


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
