"""A candidate policy: it hears of every decision and changes none, whatever it says and however it fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.grants import Grants, VideoGrants
from livekit_auth_server.core.limits import Limit
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Grant, Matcher, Policy
from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.logs.bounded_rate import LINES, SECONDS
from livekit_auth_server.service.admission import CallContext
from livekit_auth_server.service.calls import Calls
from livekit_auth_server.service.methods import ISSUE_TOKEN, VERIFY_TOKEN, VERIFY_WEBHOOK
from livekit_auth_server.service.shadow import Difference, Shadow, ShadowObserver
from livekit_auth_server.service.state import InForce
from livekit_auth_server.service.validation import Valid
from livekit_auth_server.service.webhooks import permitted_to_verify
from livekit_auth_server.telemetry.shadow_metrics import ShadowMetrics
from support.examples import examples
from support.fakes import AuditTrail, CallLog, FakeClock
from support.handlers import issue_batch, issuer, listed, state_of
from support.policies import ANY, CALLER, EVERYTHING, JOIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.service.admission import ListedCaller

ASK = pb.IssueTokenRequest(role="guest", room="a-1", identity="user-1")
ROLES = {"guest": JOIN}
GUESTS = AllowEntry("guests", frozenset({"default"}), frozenset({"guest"}), rooms=ANY, identities=ANY)


@dataclass
class Heard(ShadowObserver):
    """An observer that remembers."""

    alike: int = 0
    differences: list[Difference] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def same(self) -> None:
        self.alike += 1

    def different(self, difference: Difference) -> None:
        self.differences.append(difference)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


@dataclass
class Deaf(Heard):
    """An observer all of whose methods fail."""

    def same(self) -> None:
        raise OSError("same")

    def different(self, _difference: Difference) -> None:
        raise OSError("different")

    def failed(self, _error: Exception) -> None:
        raise OSError("failed")


def candidate(*entries: AllowEntry, caller: str = CALLER, **more: object) -> Policy:
    return Policy("r2", ROLES, {caller: CallerPolicy(caller, entries, **more)})  # type: ignore[arg-type]


async def answers(caller: ListedCaller, *requests: pb.IssueTokenRequest) -> tuple[list[bytes | str], AuditTrail]:
    """What each request is answered, by itself and in a batch, and the records."""
    trail = AuditTrail()
    service = issuer(trail)
    found: list[bytes | str] = []
    for request in requests:
        try:
            found.append((await service.issue(caller, Valid(request))).SerializeToString(deterministic=True))
        except Refusal as refusal:
            found.append(f"{refusal.reason} {refusal.message} {refusal.metadata} {refusal.violations}")
    batch = await issue_batch(service, caller, pb.BatchIssueTokensRequest(requests=requests))
    return [*found, batch.SerializeToString(deterministic=True)], trail


@pytest.mark.parametrize(
    ("live", "other", "kind"),
    [
        (GUESTS, GUESTS, None),
        (GUESTS, replace(GUESTS, name="visitors"), None),
        (GUESTS, replace(GUESTS, rooms=Matcher(prefixes=("b-",))), "would_deny"),
        (replace(GUESTS, rooms=Matcher()), GUESTS, "would_allow"),
        (GUESTS, replace(GUESTS, default_ttl=60), "differs"),
        (replace(GUESTS, rooms=Matcher()), replace(GUESTS, identities=Matcher()), "differs"),
        (replace(GUESTS, rooms=Matcher()), replace(GUESTS, rooms=Matcher(prefixes=("b-",))), None),
    ],
)
async def test_a_decision_is_held_against_the_candidates(live: AllowEntry, other: AllowEntry, kind: str | None) -> None:
    heard = Heard()
    caller = listed(live, roles=ROLES)
    await answers(replace(caller, shadow=Shadow(candidate(other), heard)), ASK)
    assert [difference.kind for difference in heard.differences] == ([kind, kind] if kind else [])  # and in a batch
    assert (heard.alike, heard.errors) == (0 if kind else 2, [])


async def test_a_difference_says_what_both_decide() -> None:
    heard = Heard()
    caller = listed(GUESTS, roles=ROLES)
    await answers(replace(caller, shadow=Shadow(candidate(replace(GUESTS, rooms=Matcher())), heard)), ASK)
    single, batched = heard.differences
    assert single == Difference(
        "would_deny", CALLER, "IssueToken", "guests in default for 600 s", "ROOM_NOT_PERMITTED", "r2", "d1"
    )
    assert (batched.method, batched.decision_id) == ("BatchIssueTokens", "d2")


async def test_a_role_that_grants_something_else_differs() -> None:
    heard = Heard()
    quiet = Policy(
        "r2", {"guest": Grants(video=VideoGrants(room_join=True, can_publish=False))}, candidate(GUESTS).callers
    )
    await answers(replace(listed(GUESTS, roles=ROLES), shadow=Shadow(quiet, heard)), ASK)
    assert {difference.kind for difference in heard.differences} == {"differs"}


async def test_another_default_project_of_the_candidate_differs() -> None:
    heard = Heard()
    both = replace(GUESTS, projects=frozenset({"default", "other"}))
    caller = listed(GUESTS, roles=ROLES)
    for default in ("", "default", "other"):
        await answers(replace(caller, shadow=Shadow(candidate(both, default_project=default), heard)), ASK)
    assert [(one.kind, one.candidate) for one in heard.differences[::2]] == [
        ("would_deny", "PROJECT_REQUIRED"),
        ("differs", "guests in other for 600 s"),
    ]
    assert heard.alike == 2


async def test_a_caller_that_the_candidate_doesnt_list_would_be_denied() -> None:
    heard = Heard()
    caller = replace(listed(GUESTS, roles=ROLES), shadow=Shadow(candidate(caller="dns:a.example"), heard))
    await answers(caller, ASK)
    permitted_to_verify(
        replace(caller, policy=replace(caller.policy, verify_tokens=frozenset({"a"}))),
        VERIFY_TOKEN,
        "",
    )
    assert [difference.kind for difference in heard.differences] == ["would_deny"] * 3
    assert heard.differences[0].candidate == "CALLER_NOT_LISTED"


@pytest.mark.parametrize(
    ("live", "other", "project", "kind"),
    [
        ("a", "a", "a", None),
        ("ab", "a", "a", None),
        ("", "a", "b", None),
        ("a", "", "a", "would_deny"),
        ("", "a", "a", "would_allow"),
        ("a", "b", "", "differs"),
        ("a", "ab", "", "differs"),
    ],
)
def test_what_may_be_verified_is_held_against_it_too(live: str, other: str, project: str, kind: str | None) -> None:
    heard = Heard()
    shadow = Shadow(candidate(verify_webhooks=frozenset(other)), heard)
    caller = listed()
    caller = replace(caller, policy=replace(caller.policy, verify_webhooks=frozenset(live)), shadow=shadow)
    try:
        got = permitted_to_verify(caller, VERIFY_WEBHOOK, project)
    except Refusal:
        got = frozenset()
    assert got == (frozenset(live) & {project} if project else frozenset(live))
    assert [(one.kind, one.method) for one in heard.differences] == ([(kind, "VerifyWebhook")] if kind else [])


async def test_an_unlisted_caller_that_the_candidate_lists_is_told_of_without_reading_its_request() -> None:
    heard, audit = Heard(), AuditTrail()
    in_force = InForce(state_of(GUESTS, roles=ROLES))
    in_force.replace_policy(Policy("r1", ROLES, {}))
    in_force.replace_shadow(Shadow(candidate(GUESTS), heard))
    calls = Calls(in_force, FakeClock(), CallLog(), deny_unlisted=issuer(audit).deny_unlisted)
    method = ISSUE_TOKEN.served_by(issuer(audit).issue)
    with pytest.raises(Refusal, match="doesn't list"):
        await calls.run(method, CallContext(b"", b""), b"\xff not a request")
    assert [(one.kind, one.candidate, one.decision_id) for one in heard.differences] == [("differs", "listed", "d1")]


# It has no say

entries = st.builds(
    AllowEntry,
    name=st.sampled_from(["x", "y"]),
    projects=st.frozensets(st.sampled_from(["default", "other"]), max_size=2),
    roles=st.frozensets(st.sampled_from(["guest", "none"]), max_size=2),
    rooms=st.sampled_from([ANY, Matcher(), Matcher(prefixes=("a-",))]),
    identities=st.sampled_from([ANY, Matcher()]),
    default_ttl=st.sampled_from([60, 600]),
)
asked = st.builds(
    pb.IssueTokenRequest,
    role=st.sampled_from(["guest", "none"]),
    room=st.sampled_from(["", "a-1", "b-1"]),
    identity=st.sampled_from(["", "u"]),
    project=st.sampled_from(["", "default", "other"]),
    validate_only=st.booleans(),
)


@given(st.lists(entries, max_size=2), st.lists(entries, max_size=2), st.lists(asked, min_size=1, max_size=4))
@examples(150)
async def test_no_candidate_changes_an_answer_or_a_record(
    live: list[AllowEntry], other: list[AllowEntry], requests: list[pb.IssueTokenRequest]
) -> None:
    caller = listed(*(live or [GUESTS]), roles=ROLES)
    expected, records = await answers(caller, *requests)
    for observer in (Heard(), Deaf()):
        got, trail = await answers(replace(caller, shadow=Shadow(candidate(*other), observer)), *requests)
        assert got == expected
        assert trail == records


class Broken(dict):  # type: ignore[type-arg]
    def get(self, *_: object) -> object:
        raise RuntimeError("a fault in the candidate")

    def __contains__(self, _: object) -> bool:
        raise RuntimeError("a fault in the candidate")


@pytest.mark.parametrize("observer", [Heard, Deaf])
async def test_a_fault_in_it_is_told_and_nothing_else(observer: Callable[[], Heard]) -> None:
    heard = observer()
    caller = listed(GUESTS, roles=ROLES)
    expected, records = await answers(caller, ASK)
    broken = Shadow(Policy("r2", ROLES, Broken()), heard)
    assert await answers(replace(caller, shadow=broken), ASK) == (expected, records)
    broken.unlisted(CALLER, "IssueToken", "d1")
    broken.verified(caller.policy, "VerifyToken", "verify_tokens", "")
    if observer is Heard:
        assert [str(error) for error in heard.errors] == ["a fault in the candidate"] * 4


async def test_its_limits_count_nothing() -> None:
    strict = candidate(GUESTS, limits=(Limit(1, 86400),))
    heard = Heard()
    caller = replace(listed(GUESTS, roles=ROLES), shadow=Shadow(strict, heard))
    found, _ = await answers(caller, *[ASK] * 10)
    assert all(isinstance(answer, bytes) for answer in found)
    assert (heard.alike, heard.differences) == (20, [])


def test_no_grant_of_the_candidate_leaves() -> None:
    """What its methods return and tell can't be minted from."""
    heard = Heard()
    shadow = Shadow(candidate(EVERYTHING), heard)
    caller = listed(GUESTS, roles=ROLES)
    from livekit_auth_server.core.policy import TokenRequest, decide  # noqa: PLC0415

    denied = decide(caller.state_policy, caller.policy, TokenRequest(JOIN, room="a", identity="b"))
    assert shadow.issued(CALLER, "IssueToken", TokenRequest(JOIN, room="a", identity="b"), denied, "d1") is None  # type: ignore[func-returns-value]
    assert heard.differences[0].kind == "would_allow"
    assert not any(isinstance(getattr(heard.differences[0], name), Grant) for name in Difference.__slots__)


# What is said of it


def difference(kind: str = "would_deny") -> Difference:
    return Difference(kind, CALLER, "IssueToken", "guests", "ROOM_NOT_PERMITTED", "r2", "d1")  # type: ignore[arg-type]


def test_differences_are_counted_by_kind_and_nothing_else() -> None:
    registry = CollectorRegistry()
    metrics = ShadowMetrics(registry, FakeClock())
    metrics.same()
    for kind in ("would_allow", "would_deny", "would_deny", "differs"):
        metrics.different(difference(kind))
    metrics.failed(RuntimeError("x"))
    kinds = ("same", "would_allow", "would_deny", "differs", "error")
    counted = {kind: registry.get_sample_value("livekit_auth_shadow_total", {"kind": kind}) for kind in kinds}
    assert counted == {"same": 1, "would_allow": 1, "would_deny": 2, "differs": 1, "error": 1}
    labels = {tuple(sample.labels) for metric in registry.collect() for sample in metric.samples}
    assert labels == {("kind",)}


def test_so_many_lines_are_logged_and_the_rest_is_counted() -> None:
    clock = FakeClock()
    metrics = ShadowMetrics(CollectorRegistry(), clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            metrics.different(difference())
        assert len(lines) == LINES
        clock.advance(SECONDS)
        metrics.failed(RuntimeError("MARKER"))
    assert {**lines[0], "log_level": ""} == {
        "event": "candidate policy decides otherwise",
        "log_level": "",
        "kind": "would_deny",
        "caller": CALLER,
        "method": "IssueToken",
        "live": "guests",
        "candidate": "ROOM_NOT_PERMITTED",
        "candidate_revision": "r2",
        "decision_id": "d1",
    }
    assert lines[-1]["not_logged"] == 1000 - LINES
    assert "MARKER" not in str(lines)
