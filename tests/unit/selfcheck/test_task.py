"""What a self-check is given: what it covers, and that it arrives as it was sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.grants import PARTICIPANT_KINDS, Grants, VideoGrants
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.selfcheck.task import Task
from support.examples import examples
from support.handlers import KEY, SECRET, key, keys_of
from support.policies import EVERYTHING, all_grants, policy_of

JOIN = Grants(video=VideoGrants(room_join=True))


def shown(task: Task) -> tuple[object, ...]:
    keys = [(one.project, one.label, one.key.id, one.key.secret.exposed()) for one in task.keys]
    return task.roles, task.spelled_out, keys


@examples(100)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), all_grants(), max_size=4), st.binary())
def test_a_task_arrives_as_it_was_sent(roles: dict[str, Grants], secret: bytes) -> None:
    keys = keys_of(KEY, ApiKey("APIbytes", Secret(secret)))
    task = Task.of(policy_of(EVERYTHING, roles=roles)[0], keys)
    assert shown(Task.decode(task.encode())) == shown(task)
    assert Task.decode(task.encode()).samples() == task.samples()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"roles":[],"spelled_out":[]}', b'{"roles":[[1]]}'])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Task.decode(data)


def test_each_role_and_each_kind_is_one_sample_whatever_the_number_of_callers() -> None:
    policy, caller = policy_of(replace(EVERYTHING, grants=frozenset()), roles={"a": JOIN, "b": JOIN})
    policy = replace(policy, callers={str(number): caller for number in range(100)})
    labels = [sample.label for sample in Task.of(policy, keys_of(KEY)).samples()]
    assert labels == ['role "a"', 'role "b"', *(f'participant kind "{kind}"' for kind in PARTICIPANT_KINDS)]


def test_spelled_out_grants_are_those_that_some_entry_permits() -> None:
    entry = replace(EVERYTHING, grants=frozenset({"room_join", "can_publish_sources"}), powers=frozenset({"sip"}))
    unused = replace(EVERYTHING, grants=frozenset(), powers=frozenset({"room_admin"}))
    [sample] = [
        sample
        for sample in Task.of(policy_of(entry, unused)[0], keys_of(KEY)).samples()
        if sample.label == "spelled-out grants"
    ]
    video = sample.grants.video
    assert video is not None
    assert video.room_join
    assert len(video.can_publish_sources) == 4
    assert not video.room_admin
    assert sample.grants.sip is not None
    assert sample.grants.inference is None


def test_a_key_is_named_by_its_place_and_a_revoked_one_is_left_out() -> None:
    alpha = Project("alpha", "", (key("API1"), key("API2", KeyState.REVOKED), key("API3", KeyState.VERIFY_ONLY)))
    task = Task.of(policy_of()[0], KeySet([alpha, Project("beta", "", (key("API4"),))]))
    assert [(one.label, one.key.id) for one in task.keys] == [
        ('key 1 of project "alpha"', "API1"),
        ('key 3 of project "alpha"', "API3"),
        ('key 1 of project "beta"', "API4"),
    ]
    assert SECRET not in repr(task)
