"""Which failures are retried, and when."""

import asyncio
import itertools

import pytest
from tenacity import RetryCallState, Retrying

from livekit_auth._connection.retry import LAST_ATTEMPT_SECONDS, Attempts, backoff, is_transient
from livekit_auth._messages.status import to_error
from support.fake_auth_server import refusal


@pytest.mark.parametrize("reason", ["", "AUDIT_UNAVAILABLE", "ACK_STORE_UNAVAILABLE", "OVERLOADED", "INVENTED_LATER"])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
def test_transient_errors_are_retried(code, reason):
    assert is_transient(to_error(refusal(code, reason)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("PERMISSION_DENIED", "ROLE_NOT_PERMITTED"),
        ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED"),
        ("NOT_FOUND", "DECISION_NOT_FOUND"),
        ("INVALID_ARGUMENT", "REQUEST_INVALID"),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        ("FAILED_PRECONDITION", "SIGNING_KEY_MISSING"),
        ("DEADLINE_EXCEEDED", ""),
        ("INTERNAL", "INTERNAL"),
    ],
)
def test_permanent_errors_are_not_retried(code, reason):
    assert not is_transient(to_error(refusal(code, reason)))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), RuntimeError(), TimeoutError()])
def test_other_exceptions_are_not_retried(error):
    assert not is_transient(error)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 1.0), (50, 1.0)])
def test_backoff_doubles_to_one_second_with_full_jitter(attempt, longest):
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    waits = [backoff(state) for _ in range(200)]
    assert all(0 <= wait <= longest for wait in waits)
    assert min(waits) < longest / 4
    assert max(waits) > longest * 3 / 4


def state(attempt=50):
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    return state


class Call:
    """A call of 5 s whose attempts fail as a test says, with its own clock."""

    def __init__(self, seconds=5.0):
        self.now = 100.0
        self.attempts = Attempts(seconds, clock=lambda: self.now)
        self.made = []

    def run(self, error, takes=0.0):
        while True:
            self.made.append(round(self.attempts.left, 3))
            self.now += takes
            self.attempts.failed(to_error(error))
            current = state(len(self.made))
            current.upcoming_sleep = self.attempts.pause(current)
            if self.attempts.over(current):
                return self.made
            self.now += current.upcoming_sleep


@pytest.mark.parametrize("seconds", [5.0, 0.5, 30.0])
def test_time_is_reserved_for_a_last_attempt(seconds):
    made = Call(seconds).run(refusal("UNAVAILABLE"), takes=0.001)
    assert 0 < made[-1] <= min(LAST_ATTEMPT_SECONDS, seconds / 5) + 0.001
    assert len(made) > 2


def test_attempts_are_never_more_than_a_second_apart():
    made = Call(30.0).run(refusal("UNAVAILABLE"), takes=0.001)
    assert all(before - after <= 1.002 for before, after in itertools.pairwise(made))


def test_retry_after_is_respected():
    made = Call(5.0).run(refusal("UNAVAILABLE", retry_after=2), takes=0.001)
    assert all(before - after >= 2.0 for before, after in itertools.pairwise(made))
    assert 2 <= len(made) <= 3


def test_backoff_is_added_to_retry_after():
    attempts = Call(5.0).attempts
    attempts.failed(to_error(refusal("UNAVAILABLE", "OVERLOADED", retry_after=2)))
    pauses = {attempts.pause(state(6)) for _ in range(50)}
    assert all(2.0 <= pause <= 3.0 for pause in pauses)
    assert len(pauses) > 1


def test_retry_after_longer_than_the_call_ends_it():
    assert Call(5.0).run(refusal("UNAVAILABLE", retry_after=60)) == [5.0]


def test_attempts_after_a_failure_wait_for_the_connection():
    attempts = Call().attempts
    assert not attempts.again
    attempts.failed(to_error(refusal("UNAVAILABLE")))
    assert attempts.again


def test_timed_out_attempt_reports_the_previous_failure():
    attempts = Call().attempts
    late = to_error(refusal("DEADLINE_EXCEEDED"))
    assert attempts.failed(late) is late
    away = to_error(refusal("UNAVAILABLE", "AUDIT_UNAVAILABLE"))
    attempts = Call().attempts
    assert attempts.failed(away) is away
    assert attempts.failed(late) is away


def test_timed_out_attempt_of_a_list_begun_again_does_not_report_the_old_page_token():
    attempts = Call().attempts
    attempts.failed(to_error(refusal("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")))
    late = to_error(refusal("DEADLINE_EXCEEDED"))
    assert attempts.failed(late) is late


def test_no_time_is_left_after_the_deadline():
    call = Call(1.0)
    call.now += 5.0
    assert call.attempts.left == 0.0
