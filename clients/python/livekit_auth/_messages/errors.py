"""The errors of a call, told apart by what the caller can do about them.

One function, `to_error`, makes them, from a failed RPC and from the status of a batch's entry alike. A reason that this
version doesn't know falls back to its gRPC code, as the contract asks. Whatever a server sends, an AuthError is what
comes of it, and its text is one line without control characters.
"""
# ruff: noqa: N818 - `except Denied` says what happened

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
"""The domain of every google.rpc.ErrorInfo that the service sends."""

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
"""The reasons that speak of the token or webhook under examination rather than of the caller."""

MAX_RETRY_AFTER = timedelta(days=366)
"""A server that names a longer wait, or one below zero, is taken to name none."""

_STATUS_DETAILS = "grpc-status-details-bin"
_DetailT = TypeVar("_DetailT", bound=Message)


class ConfigError(ValueError):
    """The client's own settings are missing or unusable; the message says what to set."""


class Violation(NamedTuple):
    """A field of the request that breaks its rules (google.rpc.BadRequest)."""

    field: str
    """The field's path, such as "ttl" or "requests[3].room"."""
    description: str
    """What is wrong with it, for people."""


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
"""Why there is no connection. The last two are about the client's own certificate."""


class Finding(NamedTuple):
    """Why there is no connection."""

    cause: Cause
    message: str
    """The same for people, with what to do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the server said about a failed call."""

    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    cause: Cause | None = None


class AuthError(Exception):
    """A call failed. The subclasses say what to do; `reason` says why.

    The message is the server's and never holds a token or a secret; `str` makes one line of it, fit for a log.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)  # the only argument, so that copies and pickles work
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
        """What went wrong, for people."""
        return self._failure.message

    @property
    def code(self) -> str:
        """The canonical gRPC code, such as "PERMISSION_DENIED"."""
        return self._failure.code

    @property
    def reason(self) -> str:
        """The contract's ErrorReason without its prefix, such as "ROLE_NOT_PERMITTED"; "" when the server gave none."""
        return self._failure.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """The reason's own facts, such as "powers" or "max_ttl_seconds"."""
        return self._failure.metadata

    @property
    def decision_id(self) -> str:
        """The decision's id in the server's audit trail; "" when there is none."""
        return self.metadata.get("decision_id", "")

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The fields at fault, when fields are."""
        return self._failure.violations

    @property
    def retry_after(self) -> timedelta | None:
        """How long to wait before trying again; None when the server doesn't say."""
        return self._failure.retry_after


class Denied(AuthError):
    """The policy doesn't permit this (PERMISSION_DENIED). Trying again won't help; `AuthClient.get_caller` may."""


class Unauthenticated(AuthError):
    """The server doesn't accept this caller's certificate (UNAUTHENTICATED)."""


class InvalidRequest(AuthError):
    """The request breaks the contract's rules or limits; `violations` lists the fields at fault."""


class VerificationFailed(AuthError):
    """The token or webhook isn't genuine, or isn't valid now; `reason` says which."""


class RateLimited(AuthError):
    """A limit was reached (RESOURCE_EXHAUSTED). Try again after `retry_after`."""


class Unavailable(AuthError):
    """There was no answer in time: server away, overloaded, or no TLS agreement. It was retried already."""


class NotConnected(Unavailable):
    """There is no connection to the server, and `cause` says why. It was retried already."""

    @property
    def cause(self) -> Cause:
        """Why, such as "refused", "name_not_found", "server_not_trusted" or "certificate_expired"."""
        failure: Failure = self.args[0]
        return failure.cause or "unreachable"


class ServerError(AuthError):
    """The server can't do its part, and the request isn't at fault: an operator must look."""


_BY_CODE: dict[str, type[AuthError]] = {
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "PERMISSION_DENIED": Denied,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
}

# The code alone would call it a limit to wait for; waiting doesn't make the answer smaller.
_BY_REASON: dict[str, type[AuthError]] = {
    "RESPONSE_TOO_LARGE": InvalidRequest,
    **dict.fromkeys(VERIFICATION_REASONS, VerificationFailed),
}


def to_error(source: grpc.RpcError | Status) -> AuthError:
    """The error for a failed RPC, or for the status of one entry of a batch."""
    failure = _read(source if isinstance(source, Status) else _status_of(source))
    # gRPC's own bound on a message, which has the code of a limit and no reason.
    if failure.code == "RESOURCE_EXHAUSTED" and not failure.reason and "larger than max" in failure.message:
        return InvalidRequest(failure)
    by_code = _BY_CODE.get(failure.code, ServerError)
    return _BY_REASON.get(failure.reason, by_code)(failure)


def unusable(what: str) -> ServerError:
    """The error for an answer that says OK and breaks the contract."""
    return ServerError(Failure("INTERNAL", f"the server's answer can't be used: {what}"))


def not_connected(finding: Finding) -> NotConnected:
    """The error for a connection that failed, once the cause is known."""
    return NotConnected(Failure("UNAVAILABLE", finding.message, cause=finding.cause))


def with_retry_after(error: AuthError, retry_after: timedelta) -> AuthError:
    """The same error, with what is left of the wait."""
    failure: Failure = error.args[0]
    return type(error)(replace(failure, retry_after=retry_after))


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal or begin a line of a log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def to_timedelta(duration: Duration) -> timedelta:
    """A duration, to the microsecond. Raises ServerError beyond what the contract's type can hold."""
    try:
        return duration.ToTimedelta()
    except (OverflowError, ValueError):
        raise unusable("a duration out of range") from None


def _status_of(error: grpc.RpcError) -> Status:
    """The google.rpc.Status that came with a failed RPC, or one made of its code and text when none did."""
    code: int = error.code().value[0]
    # The stubs know neither that this may be None nor that both clients' items unpack.
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
    """What gRPC itself says when the server said nothing: most often that there was no connection."""
    details = error.details() or "no details"
    match error.code().name:
        case "UNAVAILABLE":
            # A certificate refused under TLS 1.3 shows only as a lost connection, so it can't be told apart here.
            return (
                "can't reach the server, or no TLS agreement with it: "
                f"check the address, the CA and the client certificate ({details})"
            )
        case "DEADLINE_EXCEEDED":
            return f"no answer from the server in time ({details})"
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
    """The first detail of a kind; one that doesn't parse counts as absent."""
    for packed in status.details:
        if packed.TypeName() == kind.DESCRIPTOR.full_name:
            try:
                return kind.FromString(packed.value)
            except DecodeError:
                return None
    return None
