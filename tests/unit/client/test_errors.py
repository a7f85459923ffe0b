"""How failures become exceptions: by code, but for three cases."""

import copy
import pickle
from datetime import timedelta

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata

from livekit_auth import (
    AuthError,
    Denied,
    InvalidRequest,
    NotConnected,
    NotFound,
    RateLimited,
    ServerError,
    ServerTooOld,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)
from livekit_auth._messages.errors import Finding, not_connected, printable, with_retry_after
from livekit_auth._messages.status import MAX_RETRY_AFTER, to_error
from livekit_auth.v1.auth_service_pb2 import (
    AckWebhookRequest,
    BatchIssueTokensRequest,
    IssueTokenRequest,
    VerifyTokenRequest,
    VerifyWebhookRequest,
)
from livekit_auth.v1.errors_pb2 import ErrorReason
from support.fake_auth_server import refusal


def rpc_error(code, details="text", *trailing):
    return AioRpcError(code, Metadata(), Metadata(*trailing), details)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("PERMISSION_DENIED", Denied),
        ("UNAUTHENTICATED", Unauthenticated),
        ("INVALID_ARGUMENT", InvalidRequest),
        ("RESOURCE_EXHAUSTED", RateLimited),
        ("UNAVAILABLE", Unavailable),
        ("DEADLINE_EXCEEDED", Unavailable),
        ("CANCELLED", Unavailable),
        ("FAILED_PRECONDITION", ServerError),
        ("INTERNAL", ServerError),
        ("NOT_FOUND", NotFound),
        ("UNIMPLEMENTED", ServerTooOld),
        ("UNKNOWN", ServerError),
    ],
)
def test_code_without_a_reason_determines_the_class(code, kind):
    error = to_error(refusal(code))
    assert type(error) is kind
    assert (error.code, error.reason, error.decision_id, error.violations) == (code, "", "", ())
    assert error.retry_after == (timedelta(seconds=1) if kind is RateLimited else None)


REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()]  # noqa: SIM118 - an enum wrapper


@pytest.mark.parametrize("request_type", [VerifyTokenRequest, VerifyWebhookRequest])
@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "SIGNATURE_INVALID", "BODY_TOO_LARGE", "INVENTED_LATER"])
def test_invalid_token_or_webhook_is_a_failed_verification(request_type, reason):
    assert type(to_error(refusal("INVALID_ARGUMENT", reason), request_type)) is VerificationFailed


@pytest.mark.parametrize("request_type", [VerifyTokenRequest, VerifyWebhookRequest])
@pytest.mark.parametrize("reason", ["REQUEST_INVALID", "REQUEST_MALFORMED", ""])
def test_invalid_request_to_verify_is_no_verdict(request_type, reason):
    assert type(to_error(refusal("INVALID_ARGUMENT", reason), request_type)) is InvalidRequest


@pytest.mark.parametrize("request_type", [IssueTokenRequest, BatchIssueTokensRequest, AckWebhookRequest])
def test_methods_that_verify_nothing_have_no_failed_verification(request_type):
    assert type(to_error(refusal("INVALID_ARGUMENT", "TOKEN_EXPIRED"), request_type)) is InvalidRequest


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("request_type", [IssueTokenRequest, VerifyTokenRequest])
def test_unauthenticated_is_about_the_callers_certificate_whatever_the_reason(request_type, reason):
    assert type(to_error(refusal("UNAUTHENTICATED", reason), request_type)) is Unauthenticated


@pytest.mark.parametrize("reason", sorted({*REASONS} - {"FIELD_UNKNOWN"}))
def test_each_reason_leaves_the_class_to_the_code(reason):
    assert type(to_error(refusal("PERMISSION_DENIED", reason))) is Denied
    assert type(to_error(refusal("INVALID_ARGUMENT", reason))) is InvalidRequest
    assert type(to_error(refusal("RESOURCE_EXHAUSTED", reason))) is RateLimited


def test_unknown_reason_falls_back_to_its_code_and_stays_readable():
    error = to_error(refusal("PERMISSION_DENIED", "INVENTED_LATER"))
    assert type(error) is Denied
    assert error.reason == "INVENTED_LATER"


def test_reason_of_another_domain_is_ignored():
    error = to_error(refusal("UNAVAILABLE", "TOKEN_EXPIRED", domain="proxy.example.org"))
    assert type(error) is Unavailable
    assert error.reason == ""


def test_error_has_all_details_of_the_server():
    error = to_error(
        refusal(
            "RESOURCE_EXHAUSTED",
            "RATE_LIMITED",
            "20 a second",
            metadata={"decision_id": "dec-7", "limit": "20/s"},
            violations={"ttl": "too long"},
            retry_after=3,
        )
    )
    assert error.message == "20 a second"
    assert error.decision_id == "dec-7"
    assert error.metadata == {"decision_id": "dec-7", "limit": "20/s"}
    assert error.violations == (("ttl", "too long"),)
    assert error.violations[0].field == "ttl"
    assert error.retry_after == timedelta(seconds=3)
    assert str(error) == "20 a second; ttl: too long (RATE_LIMITED, decision dec-7)"


def test_text_does_not_repeat_a_violation():
    error = to_error(refusal("INVALID_ARGUMENT", "REQUEST_INVALID", "ttl: too long", violations={"ttl": "too long"}))
    assert str(error) == "ttl: too long (REQUEST_INVALID)"


def test_message_over_grpcs_size_limit_is_an_invalid_request():
    error = to_error(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 4)"))
    assert type(error) is InvalidRequest


def test_failed_rpc_and_failed_batch_entry_give_the_same_error():
    status = refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", metadata={"decision_id": "dec-1"})
    details = ("grpc-status-details-bin", status.SerializeToString())
    from_rpc = to_error(rpc_error(grpc.StatusCode.PERMISSION_DENIED, "no", details))
    from_entry = to_error(status)
    assert type(from_rpc) is type(from_entry) is Denied
    assert from_rpc.args == from_entry.args


@pytest.mark.parametrize(
    "details",
    [
        b"\xff not a status",
        refusal("INTERNAL", "INTERNAL").SerializeToString(),  # the status of another code
    ],
)
def test_invalid_details_leave_the_code(details):
    error = to_error(rpc_error(grpc.StatusCode.PERMISSION_DENIED, "no", ("grpc-status-details-bin", details)))
    assert type(error) is Denied
    assert (error.reason, error.message) == ("", "no")


def test_detail_that_does_not_parse_is_ignored():
    status = refusal("PERMISSION_DENIED")
    status.details.append(Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff"))
    assert to_error(status).reason == ""


def test_failed_rpc_without_trailing_metadata_is_an_error():
    error = rpc_error(grpc.StatusCode.INTERNAL)
    error.trailing_metadata = lambda: None
    assert type(to_error(error)) is ServerError


def test_missing_connection_says_what_to_check():
    error = to_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    assert "check the address, the CA and the client certificate (Socket closed)" in str(error)


@pytest.mark.parametrize("code", [0, 99])
def test_unexpected_code_becomes_unknown(code):
    error = to_error(Status(code=code))
    assert type(error) is ServerError
    assert error.code == "UNKNOWN"


@pytest.mark.parametrize("twin", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301
def test_error_survives_copying_and_pickling(twin):
    error = to_error(refusal("PERMISSION_DENIED", "ROOM_NOT_PERMITTED", "not this room", violations={"room": "no"}))
    again = twin(error)
    assert type(again) is Denied
    assert str(again) == str(error)
    assert isinstance(again, AuthError)


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        (0, True),
        (1, True),
        (MAX_RETRY_AFTER.days * 86_400, True),
        (MAX_RETRY_AFTER.days * 86_400 + 1, False),
        (-1, False),
        (2**62, False),
        (-(2**62), False),
    ],
)
def test_invalid_retry_after_is_ignored(seconds, kept):
    wait = to_error(refusal("UNAVAILABLE", "OVERLOADED", retry_after=seconds)).retry_after
    assert wait == (timedelta(seconds=seconds) if kept else None)


def test_remaining_wait_replaces_only_retry_after():
    error = to_error(refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", "20 a second", retry_after=3))
    later = with_retry_after(error, timedelta(seconds=1))
    assert type(later) is RateLimited
    assert (later.retry_after, later.reason, later.message) == (timedelta(seconds=1), "RATE_LIMITED", "20 a second")
    assert error.retry_after == timedelta(seconds=3)


def test_text_of_an_error_is_one_line_and_its_fields_are_unchanged():
    error = to_error(refusal("PERMISSION_DENIED", "A\nB", "no\x1b[31m\n", metadata={"decision_id": "\u202e"}))
    assert str(error) == "no\\x1b[31m\\n (A\\nB, decision \\u202e)"
    assert (error.message, error.reason) == ("no\x1b[31m\n", "A\nB")


def test_printable_text_is_unchanged():
    assert printable("não 漢字 ~") == "não 漢字 ~"


def test_not_connected_is_unavailable_and_survives_pickling():
    error = not_connected(Finding("refused", "nothing listens there"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(error, Unavailable)
    assert (type(again), again.cause, str(again)) == (
        NotConnected,
        "refused",
        "nothing listens there (UNAVAILABLE)",
    )
