"""What is in force: parts replaced one by one, and states that never change."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, cast

import pytest

from livekit_auth_server.core.policy import Policy
from livekit_auth_server.core.revocation import DenyList
from livekit_auth_server.service.state import InForce
from support.fakes import FakeIdentifier
from support.handlers import KEY, keys_of, state_of
from support.policies import policy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.service.shadow import Shadow

POLICY = Policy("next", {}, {})
KEYS = keys_of(KEY, project="next")
IDENTIFIER = FakeIdentifier()
SHADOW = cast("Shadow", object())

REPLACEMENTS: dict[str, tuple[Callable[[InForce], None], object]] = {
    "policy": (lambda it: it.replace_policy(POLICY), POLICY),
    "keys": (lambda it: it.replace_keys(KEYS), KEYS),
    "identifier": (lambda it: it.replace_identifier(IDENTIFIER), IDENTIFIER),
    "denied": (lambda it: it.replace_deny_list(DenyList({"spiffe://a/b": 1})), DenyList({"spiffe://a/b": 1})),
    "shadow": (lambda it: it.replace_shadow(SHADOW), SHADOW),
}


@pytest.mark.parametrize("part", REPLACEMENTS)
def test_a_part_is_replaced_alone_and_changes_the_version(part: str) -> None:
    before = state_of()
    in_force = InForce(before)
    replace, new = REPLACEMENTS[part]
    replace(in_force)
    after = in_force.state
    assert getattr(after, part) == new
    others = [name for name in REPLACEMENTS if name != part]
    assert [getattr(after, name) for name in others] == [getattr(before, name) for name in others]
    assert (before.version, after.version) == (0, 1)


def test_a_state_that_a_call_holds_never_changes() -> None:
    in_force = InForce(state_of())
    held = in_force.state
    policy = held.policy
    for replace, _ in REPLACEMENTS.values():
        replace(in_force)
    assert held.policy is policy
    assert in_force.state.version == len(REPLACEMENTS)
    with pytest.raises(FrozenInstanceError):
        held.policy = policy_of()[0]  # type: ignore[misc]


def test_deny_list_and_crls_leave_each_other_in_force() -> None:
    in_force = InForce(state_of())
    in_force.replace_deny_list(DenyList({"spiffe://a/b": 1}))
    in_force.replace_crls(DenyList(revoked=frozenset({("issuer", 1)})))
    assert in_force.state.denied == DenyList({"spiffe://a/b": 1}, revoked=frozenset({("issuer", 1)}))
    in_force.replace_deny_list(DenyList())
    assert in_force.state.denied == DenyList(revoked=frozenset({("issuer", 1)}))
