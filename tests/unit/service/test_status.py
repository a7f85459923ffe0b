"""Reasons, codes and details: the code against the words of protos/livekit_auth/v1/errors.proto."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2

from livekit_auth.v1 import errors_pb2
from livekit_auth_server.core.refusal import Overload, Reason, Refusal, Violation, invalid, overloaded
from livekit_auth_server.service.status import CODE_OF, DOMAIN, to_status

PROTO = (Path(__file__).parents[3] / "protos/livekit_auth/v1/errors.proto").read_text()
PREFIX = "ERROR_REASON_"

# What the comment above each value begins with: "// CODE. What happened."
WRITTEN = {
    name: comment.split(".")[0].removeprefix("// ")
    for comment, name in re.findall(r"^  (// .*(?:\n  //.*)*)\n  ERROR_REASON_([A-Z_0-9]+) = \d+;", PROTO, re.MULTILINE)
}


def test_the_reasons_are_the_contracts():
    assert {f"{PREFIX}{reason}" for reason in Reason} == set(errors_pb2.ErrorReason.keys()) - {f"{PREFIX}UNSPECIFIED"}


def test_a_reasons_text_is_its_name():
    assert all(reason == reason.name == str(reason) for reason in Reason)


def test_the_reasons_stand_in_the_contracts_order():
    numbers = [errors_pb2.ErrorReason.Value(f"{PREFIX}{reason}") for reason in Reason]
    assert numbers == list(range(1, len(Reason) + 1))


def test_every_reason_has_a_code():
    assert set(CODE_OF) == set(Reason)


def test_every_reason_of_the_proto_text_was_found():
    assert set(WRITTEN) == {*Reason, "UNSPECIFIED"}


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_comes_with_the_code_that_its_comment_says(reason):
    assert CODE_OF[reason] == WRITTEN[reason]


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_status_with_its_reason(reason):
    waits = reason in {Reason.RATE_LIMITED, Reason.OVERLOADED}
    status = to_status(Refusal(reason, "the message", {"key": "value"}, retry_after=1.0 if waits else None))
    assert (code_pb2.Code.Name(status.code), status.message) == (CODE_OF[reason], "the message")
    assert len(status.details) == 1 + waits
    detail = status.details[0]
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == ("livekit-auth", reason.name, {"key": "value"})
    assert DOMAIN == "livekit-auth"


def test_a_refusal_of_fields_lists_each():
    status = to_status(invalid(Violation("room", "holds a control character"), Violation("ttl", "is too long")))
    assert status.message == "room: holds a control character; ttl: is too long"
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert [detail.type_url.rsplit(".", 1)[1] for detail in status.details] == ["ErrorInfo", "BadRequest"]
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert info.reason == "REQUEST_INVALID"
    assert [(v.field, v.description) for v in request.field_violations] == [
        ("room", "holds a control character"),
        ("ttl", "is too long"),
    ]


def test_the_summary_of_many_fields_stays_short():
    refusal = invalid(*(Violation(f"field{n}", "is wrong") for n in range(9)))
    assert refusal.message == "field0: is wrong; field1: is wrong; field2: is wrong"
    assert len(refusal.violations) == 9


def test_a_refusal_shows_its_reason_and_message_and_nothing_else():
    assert str(Refusal(Reason.KEY_UNKNOWN, "no such key", {"hidden": "MARKER"})) == "KEY_UNKNOWN: no such key"


@pytest.mark.parametrize("reason", [reason for reason in Reason if CODE_OF[reason] == "RESOURCE_EXHAUSTED"])
def test_resource_exhausted_is_never_said_without_a_wait(reason):
    with pytest.raises(ValueError, match="says how long to wait"):
        Refusal(reason, "the message")


@pytest.mark.parametrize("cause", Overload)
def test_an_overload_says_its_cause_and_a_wait(cause):
    refusal = overloaded(cause, "the message")
    assert (refusal.reason, refusal.metadata, refusal.retry_after) == (Reason.OVERLOADED, {"cause": cause.value}, 1.0)


def test_an_overload_is_never_said_without_a_wait():
    with pytest.raises(ValueError, match="says how long to wait"):
        Refusal(Reason.OVERLOADED, "the message", {"cause": "server_calls"})


@pytest.mark.parametrize(
    ("wait", "seconds", "nanos"), [(0.001, 0, 1_000_000), (59.9996, 60, 0), (3600.25, 3600, 250_000_000)]
)
def test_a_refusal_that_will_pass_says_when(wait, seconds, nanos):
    status = to_status(Refusal(Reason.RATE_LIMITED, "the message", {"limit": "20/s"}, retry_after=wait))
    info, retry = status.details
    assert info.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    message = error_details_pb2.RetryInfo()
    assert retry.Unpack(message)
    assert (message.retry_delay.seconds, message.retry_delay.nanos) == (seconds, nanos)
