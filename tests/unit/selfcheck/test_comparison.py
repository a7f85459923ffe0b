"""What is compared with livekit-api, which faults of either side are found, and what a finding may say."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.api import WebhookReceiver

from livekit_auth_server.core.grants import GROUPS, Grants, VideoGrants
from livekit_auth_server.core.keys import ApiKey, KeySet, Project, Secret
from livekit_auth_server.core.mint import claims, mint
from livekit_auth_server.files.document import Document
from livekit_auth_server.policy.policy_file import compile_policy
from livekit_auth_server.selfcheck import comparison
from livekit_auth_server.selfcheck.comparison import compare
from livekit_auth_server.selfcheck.report import LISTED, Difference, Kind
from livekit_auth_server.selfcheck.task import Task
from support.deployment import POLICY
from support.handlers import KEY, SECRET, key, keys_of
from support.policies import EVERYTHING, policy_of
from support.snippets import ROOT
from support.snippets import blocks as code_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.selfcheck.report import Report

ROLES = {"guest": Grants(video=VideoGrants(room_join=True)), "quiet": Grants(video=VideoGrants(can_publish=False))}
EXAMPLES = {
    "the tests' deployment": (POLICY, {"alpha", "beta"}),
    "the end-to-end tests": ((ROOT / "tests/e2e/policy.yaml").read_text(), {"default"}),
    "docs/policy.md": (next(t for kind, t in code_blocks(ROOT / "docs/policy.md") if kind == "yaml"), {"default"}),
}


def task(*keys: ApiKey) -> Task:
    return Task.of(policy_of(EVERYTHING, roles=ROLES)[0], keys_of(*(keys or (KEY,))))


def checked(given: Task) -> Report:
    return compare(given, time.time)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_differ_in_nothing(example: str) -> None:
    text, projects = EXAMPLES[example]
    policy = compile_policy(Document.parse(Path("policy.yaml"), text.encode()), frozenset(projects))
    given = Task.of(policy, keys_of(KEY, key("APIsecond")))
    report = checked(given)
    assert report.listed == ()
    assert report.tokens >= len(policy.roles)
    assert report.keys == 2


def test_every_group_of_grants_has_a_twin_and_is_minted_where_it_can_be_spelled_out() -> None:
    assert comparison._TWINS.keys() == set(GROUPS.values())
    everything = next(sample for sample in task().samples() if sample.label == "spelled-out grants")
    assert all(getattr(everything.grants, name) is not None for name in GROUPS)


def test_a_server_without_keys_has_nothing_to_compare() -> None:
    given = Task.of(policy_of(EVERYTHING, roles=ROLES)[0], KeySet([Project("default", "", ())]))
    assert (checked(given).tokens, checked(given).differences) == (0, 0)


def altering(change: Callable[[str], str]) -> Callable[..., str]:
    """The mint, with other claims in its tokens."""

    def altered(grant: Any, signing: ApiKey, now: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("livekit_auth_server.core.mint.claims", lambda *given: change(claims(*given)))
            return mint(grant, signing, now)

    return altered


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"canPublish":true', '"canPublish":false', "video.canPublish"),
        ('"roomJoin":true', '"roomJoin":true,"extra":1', "video.extra"),
        (',"canSubscribe":true', "", "video.(a member that only livekit-api has)"),
        ('"sub":', '"subject":', "subject, a claim that only livekit-api has"),
        ('"kind":', '"kind" :', "the header, the order of claims or the signature"),
    ],
)
def test_claims_that_differ_are_named(monkeypatch: pytest.MonkeyPatch, old: str, new: str, what: str) -> None:
    monkeypatch.setattr(comparison, "mint", altering(lambda text: text.replace(old, new)))
    found = [one.what for one in checked(task()).listed if (one.kind, one.at) == (Kind.TOKEN, 0)]
    assert found == [what]


def test_a_signature_with_another_secret_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ApiKey(KEY.id, Secret(b"x" * 40))
    monkeypatch.setattr(comparison, "mint", lambda grant, _, now: mint(grant, other, now))
    report = checked(task())
    assert report.counts[Kind.TOKEN] == report.tokens
    assert Difference(Kind.VERIFICATION, 0, "InvalidSignatureError raised") in report.listed


def test_a_token_that_lives_longer_than_granted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "timedelta", lambda seconds: timedelta(seconds=seconds + 9))
    assert checked(task()).listed[0] == Difference(Kind.TOKEN, 0, "_NoTimesError raised")


def test_a_receiver_that_takes_an_altered_body_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lax(WebhookReceiver):
        def receive(self, body: str, auth_token: str) -> Any:
            return super().receive(body.replace("EV_another", "EV_selfcheck"), auth_token)

    monkeypatch.setattr("livekit.api.WebhookReceiver", Lax)
    assert checked(task()).listed == (Difference(Kind.WEBHOOK, 0, "livekit-api accepts an altered body"),)


def test_a_webhook_that_is_read_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(WebhookReceiver):
        def receive(self, body: str, auth_token: str) -> Any:
            event = super().receive(body, auth_token)
            event.room.name += "x"
            return event

    monkeypatch.setattr("livekit.api.WebhookReceiver", Other)
    assert checked(task()).listed == (Difference(Kind.WEBHOOK, 0, "room.name"),)


def test_each_key_is_verified_and_only_the_first_mints() -> None:
    """A secret that isn't UTF-8 can't be given to livekit-api."""
    report = checked(task(KEY, ApiKey("APIbytes", Secret(b"\xff" * 40))))
    what = "UnicodeDecodeError raised"
    assert report.listed == (Difference(Kind.VERIFICATION, 1, what), Difference(Kind.WEBHOOK, 1, what))


def test_many_differences_are_counted_and_few_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError(f"could hold {SECRET}")

    monkeypatch.setattr(comparison, "mint", fails)
    report = checked(task(*(key(f"API{number}") for number in range(LISTED))))
    assert len(report.listed) == LISTED
    assert report.differences == report.tokens + LISTED
    assert {one.what for one in report.listed} == {"RuntimeError raised"}
    assert SECRET not in repr(report)


def test_what_runs_out_of_memory_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(comparison, "mint", fails)
    with pytest.raises(MemoryError):
        checked(task())
