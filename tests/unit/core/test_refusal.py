"""The reasons are the contract's, and a refusal is an exception like any other."""

from __future__ import annotations

import copy
import pickle

import pytest

from livekit_auth.v1 import errors_pb2
from livekit_auth_server.core.refusal import Reason, Refusal, Violation, invalid

PREFIX = "ERROR_REASON_"


def test_the_reasons_are_those_of_the_contract() -> None:
    contract = [name.removeprefix(PREFIX) for name, number in errors_pb2.ErrorReason.items() if number]
    assert [reason.value for reason in Reason] == contract


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_its_name_as_text(reason: Reason) -> None:
    assert (reason.name, str(reason), f"{reason}") == (reason.value,) * 3


def test_a_refusal_says_reason_and_message() -> None:
    refusal = Refusal(Reason.ROOM_NOT_PERMITTED, "no entry covers this room")
    assert str(refusal) == "ROOM_NOT_PERMITTED: no entry covers this room"
    assert (dict(refusal.metadata), refusal.violations) == ({}, ())


def test_refusals_dont_share_their_metadata() -> None:
    first, second = Refusal(Reason.INTERNAL, "a"), Refusal(Reason.INTERNAL, "a")
    assert first.metadata is not second.metadata


def test_a_refusal_can_be_raised_chained_noted_hashed_and_copied() -> None:
    refusal = Refusal(Reason.TTL_NOT_PERMITTED, "too long", {"max_ttl_seconds": "60"})
    with pytest.raises(Refusal) as caught:
        raise refusal from ValueError("cause")
    assert caught.value is refusal
    assert isinstance(refusal.__cause__, ValueError)
    refusal.add_note("seen")
    assert isinstance(hash(refusal), int)
    for same in (copy.copy(refusal), pickle.loads(pickle.dumps(refusal))):  # noqa: S301 - its own pickle
        assert (same.reason, same.message, same.metadata) == (refusal.reason, refusal.message, refusal.metadata)


def test_equal_refusals_are_two_exceptions() -> None:
    assert Refusal(Reason.INTERNAL, "a") != Refusal(Reason.INTERNAL, "a")


def test_violations_are_all_kept_and_the_first_three_said() -> None:
    violations = tuple(Violation(f"entries[{index}].room", "is too long") for index in range(5))
    refusal = invalid(*violations)
    assert refusal.reason is Reason.REQUEST_INVALID
    assert refusal.violations == violations
    assert refusal.message == "; ".join(f"entries[{index}].room: is too long" for index in range(3))
