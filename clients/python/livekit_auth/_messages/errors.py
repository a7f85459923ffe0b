"""The errors of a call, classified by what the caller can do about them.

The text of an error is one line without control characters, whatever the server sent.
"""
# ruff: noqa: N818 - `except Denied` reads as what happened

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_AFTER = timedelta(seconds=1)
"""How long to wait after a refusal for a limit that doesn't say: one by a proxy."""


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
    """The policy denies this (PERMISSION_DENIED). Don't retry.

    `AuthClient.get_decision` explains the `decision_id`; `AuthClient.list_permissions` shows what is permitted.
    """


class Unauthenticated(AuthError):
    """The server rejects the caller's own certificate (UNAUTHENTICATED): never a token or webhook in a request."""


class InvalidRequest(AuthError):
    """The request breaks a rule or limit of the contract; `violations` lists the invalid fields."""


class VerificationFailed(AuthError):
    """The token or webhook isn't genuine or isn't valid now; `reason` says which."""


class NotFound(AuthError):
    """The server has no such decision for this caller, or has forgotten it (NOT_FOUND)."""


class RateLimited(AuthError):
    """A limit was reached (RESOURCE_EXHAUSTED). Retry after `retry_after`."""

    @property
    def retry_after(self) -> timedelta:
        """How long to wait before a retry."""
        wait = self._failure.retry_after
        return RETRY_AFTER if wait is None else wait


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


class ServerTooOld(ServerError):
    """The server lacks a field or method that this client used. The message says which server the client needs."""


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
