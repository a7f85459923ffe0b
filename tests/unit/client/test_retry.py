"""Which failures are tried again, and after how long."""

import asyncio

import pytest
from tenacity import RetryCallState, Retrying

from livekit_auth._errors import to_error
from livekit_auth._retry import BACKOFF, is_transient
from support.fake_auth_server import refusal


@pytest.mark.parametrize("reason", ["", "AUDIT_UNAVAILABLE", "ACK_STORE_UNAVAILABLE", "INVENTED_LATER"])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
def test_what_may_pass_is_tried_again(code, reason):
    assert is_transient(to_error(refusal(code, reason)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"),
        ("UNAUTHENTICATED", "KEY_UNKNOWN"),
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        ("FAILED_PRECONDITION", "NO_SIGNING_KEY"),
        ("DEADLINE_EXCEEDED", ""),
        ("INTERNAL", "INTERNAL"),
    ],
)
def test_an_answer_is_not_asked_for_again(code, reason):
    assert not is_transient(to_error(refusal(code, reason)))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), RuntimeError(), TimeoutError()])
def test_what_is_no_answer_of_the_service_is_not_tried_again(error):
    assert not is_transient(error)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 2.0), (50, 2.0)])
def test_the_backoff_doubles_to_two_seconds_with_full_jitter(attempt, longest):
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    waits = [BACKOFF(state) for _ in range(200)]
    assert all(0 <= wait <= longest for wait in waits)
    assert min(waits) < longest / 4
    assert max(waits) > longest * 3 / 4
