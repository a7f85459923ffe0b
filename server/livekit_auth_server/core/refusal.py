"""Why something is refused. The reasons are the contract's: protos/livekit_auth/v1/errors.proto documents each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(StrEnum):
    """The reasons of errors.proto without their prefix; a test holds the two lists together."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:  # noqa: ARG004
        return name

    CERTIFICATE_INVALID = auto()
    CERTIFICATE_EXPIRED = auto()
    CALLER_NOT_LISTED = auto()
    REQUEST_MALFORMED = auto()
    FIELD_UNKNOWN = auto()
    REQUEST_INVALID = auto()
    PROJECT_REQUIRED = auto()
    PROJECT_NOT_PERMITTED = auto()
    ROLE_NOT_PERMITTED = auto()
    GRANT_NOT_PERMITTED = auto()
    POWER_NOT_PERMITTED = auto()
    ROOM_NOT_PERMITTED = auto()
    IDENTITY_NOT_PERMITTED = auto()
    TTL_NOT_PERMITTED = auto()
    SIGNING_KEY_MISSING = auto()
    RESPONSE_TOO_LARGE = auto()
    RATE_LIMITED = auto()
    AUDIT_UNAVAILABLE = auto()
    TOKEN_MALFORMED = auto()
    KEY_UNKNOWN = auto()
    SIGNATURE_INVALID = auto()
    TOKEN_EXPIRED = auto()
    NOT_A_WEBHOOK_TOKEN = auto()
    NOT_AN_ACCESS_TOKEN = auto()
    BODY_ALTERED = auto()
    BODY_TOO_LARGE = auto()
    BODY_NOT_JSON = auto()
    ACK_STORE_UNAVAILABLE = auto()
    INTERNAL = auto()
    TLS_VERSION_UNSUPPORTED = auto()
    LIMITS_UNAVAILABLE = auto()
    CERTIFICATE_REVOKED = auto()
    OVERLOADED = auto()
    BATCH_EXCEEDS_LIMIT = auto()
    PAGE_TOKEN_INVALID = auto()
    DECISION_NOT_FOUND = auto()
    SELFCHECK_FAILED = auto()


class Overload(StrEnum):
    """What has no room for a call. The metadata "cause" of OVERLOADED, and a label of a metric.

    The names of bounds that the caller alone has reached begin with "caller_".
    """

    CALLER_CALLS = "caller_calls"
    CALLER_CONNECTIONS = "caller_connections"
    CALLER_QUEUE = "caller_queue"
    SERVER_CALLS = "server_calls"
    SERVER_QUEUE = "server_queue"
    REQUEST_BYTES = "request_bytes"
    REQUEST_MEMORY = "request_memory"
    SLOW_REQUEST = "slow_request"
    CERTIFICATES = "certificates"


RETRY = 1.0
"""Seconds after which a call that found no room may come again."""
_WITH_WAIT = {Reason.RATE_LIMITED, Reason.OVERLOADED}


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule: its path in the request message, and what the rule is. Never the value."""

    field: str
    description: str


@dataclass(slots=True, eq=False)  # an exception is itself and hashable
class Refusal(Exception):  # noqa: N818 - "refusal" is what the documents call it
    """A request that isn't granted. `message` and `metadata` reach the caller, so they never hold a secret.

    `retry_after` is in seconds, where waiting helps and for how long is known. RATE_LIMITED and OVERLOADED always have
    it: `rate_limited` and `overloaded` make them, and without it none can be made.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if self.reason in _WITH_WAIT and self.retry_after is None:
            raise ValueError(f"{self.reason} says how long to wait")

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def invalid(*violations: Violation) -> Refusal:
    """A refusal of fields that break their rules."""
    summary = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:3])
    return Refusal(Reason.REQUEST_INVALID, summary, violations=violations)


def rate_limited(message: str, metadata: Mapping[str, str], *, retry_after: float) -> Refusal:
    """A refusal of a call over a rate limit, which fits after so many seconds."""
    return Refusal(Reason.RATE_LIMITED, message, metadata, retry_after=retry_after)


def overloaded(cause: Overload, message: str) -> Refusal:
    """A refusal of a call that finds no room now. Nothing was done for it."""
    return Refusal(Reason.OVERLOADED, message, {"cause": cause.value}, retry_after=RETRY)
