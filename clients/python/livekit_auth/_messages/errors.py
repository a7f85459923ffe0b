"""The errors of a call, classified by what the caller can do about them.

`to_error` makes all of them, from a failed RPC or from the status of a batch entry. A reason unknown to this version
falls back to its gRPC code, as the contract requires. Whatever a server sends becomes an AuthError, and the error's
text is one line without control characters.
"""
# ruff: noqa: N818 - `except Denied` reads as what happened

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import grpc
    from google.protobuf.duration_pb2 import Duration

DOMAIN = "livekit-auth"
"""The domain of each google.rpc.ErrorInfo that the server sends."""

VERIFICATION_REASONS = frozenset(
    {
        "BODY_ALTERED",
        "BODY_NOT_JSON",
        "BODY_TOO_LARGE",
        "KEY_UNKNOWN",
        "NOT_AN_ACCESS_TOKEN",
        "NOT_A_WEBHOOK_TOKEN",
        "SIGNATURE_INVALID",
        "TOKEN_EXPIRED",
        "TOKEN_MALFORMED",
    }
)
"""The reasons that are about the verified token or webhook, not about the caller."""

MAX_RETRY_AFTER = timedelta(days=366)
"""A longer wait, or a negative one, is ignored."""

_STATUS_DETAILS = "grpc-status-details-bin"
_DetailT = TypeVar("_DetailT", bound=Message)


class ConfigError(ValueError):
    """The client's settings are missing or unusable. The message says what to set."""


class Violation(NamedTuple):
    """A request field that breaks the contract (google.rpc.BadRequest)."""

    field: str
    """The field's path, such as "ttl" or "requests[3].room"."""
    description: str
    """What is wrong with it, in human-readable form."""


Cause = Literal[
    "name_not_found",
    "refused",
    "unreachable",
    "not_tls",
    "server_not_trusted",
    "server_certificate_expired",
    "wrong_host_name",
    "certificate_expired",
    "certificate_refused",
]
"""Why there is no connection. The last two causes concern the client's own certificate."""


class Finding(NamedTuple):
    """Why there is no connection."""

    cause: Cause
    message: str
    """The cause in human-readable form, with what to do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the server reported about a failed call."""

    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    cause: Cause | None = None


class AuthError(Exception):
    """A call failed. The subclass tells what to do, `reason` tells why.

    The message comes from the server and never contains a token or a secret; `str` turns it into one line for a log.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)  # the only argument, so that copying and pickling work
        self._failure = failure

    def __str__(self) -> str:
        notes = [self.reason or self.code]
        if self.decision_id:
            notes.append(f"decision {self.decision_id}")
        unsaid = [v for v in self.violations if v.description not in self.message]
        details = "".join(f"; {v.field}: {v.description}" for v in unsaid)
        return printable(f"{self.message}{details} ({', '.join(notes)})")

    @property
    def message(self) -> str:
        """What went wrong, in human-readable form."""
        return self._failure.message

    @property
    def code(self) -> str:
        """The canonical gRPC code, such as "PERMISSION_DENIED"."""
        return self._failure.code

    @property
    def reason(self) -> str:
        """The contract's ErrorReason without its prefix, such as "ROLE_NOT_PERMITTED"; "" if the server gave none."""
        return self._failure.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """Details of the reason, such as "powers" or "max_ttl_seconds"."""
        return self._failure.metadata

    @property
    def decision_id(self) -> str:
        """The id of the decision in the server's audit trail; "" if there is none."""
        return self.metadata.get("decision_id", "")

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The request fields that are invalid, if any."""
        return self._failure.violations

    @property
    def retry_after(self) -> timedelta | None:
        """How long to wait before a retry; None if the server doesn't say."""
        return self._failure.retry_after


class Denied(AuthError):
    """The policy denies this (PERMISSION_DENIED). Don't retry; `AuthClient.get_caller` shows what is permitted."""


class Unauthenticated(AuthError):
    """The server rejects the caller's certificate (UNAUTHENTICATED)."""


class InvalidRequest(AuthError):
    """The request breaks a rule or limit of the contract; `violations` lists the invalid fields."""


class VerificationFailed(AuthError):
    """The token or webhook isn't genuine or isn't valid now; `reason` says which."""


class RateLimited(AuthError):
    """A limit was reached (RESOURCE_EXHAUSTED). Retry after `retry_after`."""


class Unavailable(AuthError):
    """No response in time: the server is down, overloaded, or the TLS handshake failed. Retries are exhausted."""


class NotConnected(Unavailable):
    """There is no connection to the server; `cause` says why. Retries are exhausted."""

    @property
    def cause(self) -> Cause:
        """The cause, such as "refused", "name_not_found", "server_not_trusted" or "certificate_expired"."""
        failure: Failure = self.args[0]
        return failure.cause or "unreachable"


class ServerError(AuthError):
    """The server failed, and not because of the request: an operator must investigate."""


_BY_CODE: dict[str, type[AuthError]] = {
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "PERMISSION_DENIED": Denied,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
}

# By its code alone this would be a RateLimited, but waiting doesn't make the response smaller.
_BY_REASON: dict[str, type[AuthError]] = {
    "RESPONSE_TOO_LARGE": InvalidRequest,
    **dict.fromkeys(VERIFICATION_REASONS, VerificationFailed),
}


def to_error(source: grpc.RpcError | Status) -> AuthError:
    """The error for a failed RPC, or for the status of a batch entry."""
    failure = _read(source if isinstance(source, Status) else _status_of(source))
    # gRPC's own message size limit, which has the code of a rate limit and no reason.
    if failure.code == "RESOURCE_EXHAUSTED" and not failure.reason and "larger than max" in failure.message:
        return InvalidRequest(failure)
    by_code = _BY_CODE.get(failure.code, ServerError)
    return _BY_REASON.get(failure.reason, by_code)(failure)


def unusable(what: str) -> ServerError:
    """The error for an OK response that breaks the contract."""
    return ServerError(Failure("INTERNAL", f"invalid response from the server: {what}"))


def not_connected(finding: Finding) -> NotConnected:
    """The error for a failed connection whose cause is known."""
    return NotConnected(Failure("UNAVAILABLE", finding.message, cause=finding.cause))


def with_retry_after(error: AuthError, retry_after: timedelta) -> AuthError:
    """The same error with the remaining wait."""
    failure: Failure = error.args[0]
    return type(error)(replace(failure, retry_after=retry_after))


def printable(text: str) -> str:
    """Escapes everything in a text that could control a terminal or start a new log line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
