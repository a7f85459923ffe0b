"""What a change of policy alters: found where it alters a decision, and nowhere else."""

from __future__ import annotations

import inspect
import json
import random
import runpy
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from livekit_auth_server.cli.policy import app
from livekit_auth_server.core.limits import Limit
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Grant, Matcher, Policy, TokenRequest, decide
from livekit_auth_server.files.document import Document
from livekit_auth_server.policy.diff import CallerDiff, diff
from livekit_auth_server.policy.policy_file import compile_policy, load_policies
from support.examples import examples
from support.policies import JOIN

WEB = "spiffe://example.org/web"
BASE = """\
version: 1
roles:
  guest: {video: {room_join: true, can_publish_data: false}}
  hook: {video: {room_list: true}}
callers:
  - id: spiffe://example.org/web
    allow:
      - name: guests
        projects: [default]
        roles: [guest]
        rooms: [{prefix: consult-}, {exact: lobby}]
        identities: [{prefix: user-}]
        ttl: {default: 10m, max: 1h}
      - {name: staff, projects: [default], roles: [guest], rooms: [{prefix: staff-}], identities: any}
    verify: {webhooks: [default]}
    limits: [{rate: 20/s}]
  - id: spiffe://example.org/other
    allow: [{projects: [default], roles: [hook], powers: [room_list], rooms: any}]
"""


def load(text: str) -> Policy:
    return compile_policy(Document.parse(Path("policy.yaml"), text.encode()), frozenset({"default", "second"}))


def changed(old: str, new: str) -> list[str]:
    """Every change as "caller: change", for the base policy with this text replaced."""
    assert old in BASE
    return shown(diff(load(BASE), load(BASE.replace(old, new, 1))))


def shown(found: list[CallerDiff]) -> list[str]:
    return [f"{caller.caller.rsplit('/', 1)[1]}: {change}" for caller in found for change in caller.changes]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("room_join: true, can", "room_join: true, hidden: false, can", []),
        ("{prefix: consult-}, {exact: lobby}", "{exact: lobby}, {prefix: consult-}, {exact: consult-1}", []),
        (
            "can_publish_data: false",
            "",
            ["web: + guests: role guest video.can_publish_data", "web: + staff: role guest video.can_publish_data"],
        ),
        (
            "can_publish_data: false",
            "can_publish_data: false, can_publish_sources: [camera]",
            [f"web: ~ {entry}: role guest video.can_publish_sources none -> camera" for entry in ("guests", "staff")],
        ),
        (
            "room_join: true, can",
            "room_join: true, can_subscribe_metrics: false, can",
            [f"web: ~ {entry}: role guest video.can_subscribe_metrics none -> false" for entry in ("guests", "staff")],
        ),
        (
            "room_join: true, can",
            "room_join: true, can_update_own_metadata: true, can",
            [f"web: + {entry}: role guest video.can_update_own_metadata" for entry in ("guests", "staff")],
        ),
        (
            "[{prefix: consult-}, ",
            "[{prefix: board-}, ",
            ["web: - guests: rooms prefix consult-", "web: + guests: rooms prefix board-"],
        ),
        ("[{prefix: user-}]", "any", ["web: - guests: identities prefix user-", "web: + guests: identities any"]),
        ("max: 1h", "max: 30m", ["web: ~ guests: ttl.max 3600 s -> 1800 s"]),
        ("default: 10m", "default: 5m", ["web: ~ guests: ttl.default 600 s -> 300 s"]),
        ("webhooks: [default]", "webhooks: any", ["web: + verify.webhooks second"]),
        ("verify: {web", "read_decisions: [second]\n    verify: {web", ["web: + read_decisions second"]),
        (
            "verify: {webhooks: [default]}",
            "verify: {tokens: [default]}",
            ["web: - verify.webhooks default", "web: + verify.tokens default"],
        ),
        ("{rate: 20/s}", "{rate: 10/s, methods: [IssueToken]}", ["web: ~ limits 20/s -> 10/s of IssueToken"]),
        ("    limits: [{rate: 20/s}]\n", "", ["web: ~ limits 20/s -> none"]),
        ("name: guests", "name: visitors", ["web: ~ visitors: name guests -> visitors"]),
        ("powers: [room_list]", "powers: [room_list, agent]", ["other: + allow[0]: powers agent"]),
    ],
)
def test_a_change_is_said_where_it_alters_something(old: str, new: str, changes: list[str]) -> None:
    assert changed(old, new) == changes


def test_an_unused_role_alters_nothing() -> None:
    assert changed("  hook:", "  spare: {sip: {call: true}}\n  hook:") == []


def test_callers_are_added_and_removed_with_what_they_have() -> None:
    without = BASE[: BASE.index("  - id: spiffe://example.org/other")]
    whole = (
        "other: {} allow[0]: entry [projects default; roles hook (video.room_list, video.can_publish, "
        "video.can_subscribe, video.can_publish_data); powers room_list; rooms any; ttl 600 s, at most 3600 s]"
    )
    added, removed = diff(load(without), load(BASE)), diff(load(BASE), load(without))
    assert ([c.kind for c in added], shown(added)) == (["added"], [whole.format("+")])
    assert ([c.kind for c in removed], shown(removed)) == (["removed"], [whole.format("-")])
    idle = diff(load(without), load(without + "  - id: dns:a.example\n"))
    assert idle == [CallerDiff("dns:a.example", "added", ())]


def entries(*names: str, rooms: str = "consult-") -> str:
    lines = [
        f"      - {{name: {n}, projects: [default], roles: [guest], rooms: [{{prefix: {r}}}], identities: any}}\n"
        for n, r in zip(names, rooms.split(), strict=True)
    ]
    head = f"version: 1\nroles: {{guest: {{video: {{room_join: true}}}}}}\ncallers:\n  - id: {WEB}\n    allow:\n"
    return head + "".join(lines)


def test_another_order_of_entries_that_never_meet_is_no_change() -> None:
    assert diff(load(entries("a", "b", rooms="x- y-")), load(entries("b", "a", rooms="y- x-"))) == []


def test_another_order_of_entries_that_meet_is_one() -> None:
    found = diff(load(entries("a", "b", rooms="x- x-y-")), load(entries("b", "a", rooms="x-y- x-")))
    assert shown(found) == ["web: ~ b: order after a -> before a"]


def test_an_entry_put_before_unnamed_ones_doesnt_make_them_other_ones() -> None:
    text = BASE.replace("allow: [{projects", "allow: [{projects: [second]}, {projects")
    assert shown(diff(load(BASE), load(text))) == [
        "other: ~ allow[1]: name allow[0] -> allow[1]",
        "other: + allow[0]: entry [projects second; ttl 600 s, at most 3600 s]",
        "other: - a request without a project: was default, now PROJECT_REQUIRED",
    ]


# A request without a project


def with_projects(projects: str, default: str = "", entries: str = "") -> Policy:
    default = f"\n    default_project: {default}" if default else ""
    return load(f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: {projects}}}{entries}]{default}\n")


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (("[default]",), ("any",), "- a request without a project: was default, now PROJECT_REQUIRED"),
        (("any",), ("[second]",), "+ a request without a project: was PROJECT_REQUIRED, now second"),
        (("[default]",), ("[second]",), "~ a request without a project: was default, now second"),
        (("[default]",), ("any", "second"), "~ a request without a project: was default, now second"),
        (("any",), ("any", "second"), "+ a request without a project: was PROJECT_REQUIRED, now second"),
        (("any", "second"), ("any",), "- a request without a project: was second, now PROJECT_REQUIRED"),
        (("any", "second"), ("any", "default"), "~ a request without a project: was second, now default"),
        (("any", "second"), ("[default]",), "~ a request without a project: was second, now default"),
        (("[default]",), ("any", "default"), None),
        (("any", "default"), ("[default]",), None),
        (("[default]",), ("[default]", "default"), None),
        (("any",), ("any",), None),
        (("[default]",), ("[]",), None),
        (("[]",), ("any",), None),
    ],
)
def test_what_a_request_without_a_project_gets_is_compared(
    old: tuple[str, ...], new: tuple[str, ...], change: str | None
) -> None:
    found = [line for line in shown(diff(with_projects(*old), with_projects(*new))) if "without" in line]
    assert found == ([f"web: {change}"] if change else [])


def test_a_default_that_changes_no_decision_is_no_difference() -> None:
    assert diff(with_projects("[default]"), with_projects("[default]", "default")) == []


def test_a_project_of_another_entry_is_compared_too() -> None:
    found = diff(with_projects("[default]"), with_projects("[default]", entries=", {projects: [second]}"))
    assert shown(found) == [
        "web: + allow[1]: entry [projects second; ttl 600 s, at most 3600 s]",
        "web: - a request without a project: was default, now PROJECT_REQUIRED",
    ]


def test_a_new_caller_has_its_default_project() -> None:
    found = diff(Policy("r", {}, {}), with_projects("any", "second"))
    assert shown(found)[-1] == "web: + default_project second"


# No field is left out

OTHERWISE: dict[str, Any] = {
    "name": "visitors",
    "projects": frozenset({"second"}),
    "roles": frozenset({"hook"}),
    "grants": frozenset({"room_join"}),
    "powers": frozenset({"agent"}),
    "rooms": Matcher(exact=frozenset({"board"})),
    "identities": Matcher(any=True),
    "default_ttl": 60,
    "max_ttl": 60,
    "id": "dns:a.example",
    "entries": (),
    "verify_webhooks": frozenset({"second"}),
    "verify_tokens": frozenset({"second"}),
    "limits": (Limit(5, 1),),
    "read_decisions": frozenset({"second"}),
    "default_project": "second",
}
"""Another value for each field of a caller and of an entry."""


@pytest.mark.parametrize("name", [field.name for field in fields(AllowEntry) if field.init])
def test_another_value_of_any_field_of_an_entry_is_a_difference(name: str) -> None:
    old = load(BASE)
    caller = old.callers[WEB]
    entry = replace(caller.entries[0], **{name: OTHERWISE[name]})
    caller = replace(caller, entries=(entry, *caller.entries[1:]))
    assert diff(old, replace(old, callers={**old.callers, WEB: caller}))


@pytest.mark.parametrize("name", [field.name for field in fields(CallerPolicy) if field.init])
def test_another_value_of_any_field_of_a_caller_is_a_difference(name: str) -> None:
    old = load(BASE)
    assert diff(old, replace(old, callers={**old.callers, WEB: replace(old.callers[WEB], **{name: OTHERWISE[name]})}))


@pytest.mark.parametrize("of", [AllowEntry, CallerPolicy])
def test_a_field_without_a_rule_keeps_the_program_from_starting(
    of: type[AllowEntry | CallerPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = make_dataclass(of.__name__, [("colour", str, "")], bases=(of,), frozen=True)
    monkeypatch.setattr(f"livekit_auth_server.core.policy.{of.__name__}", wider)
    with pytest.raises(TypeError, match=f"one rule for each field of {of.__name__}: colour"):
        runpy.run_path(inspect.getfile(diff))


# Against decisions: policies without a difference decide alike, and a different decision is a difference

words = st.sampled_from(["a", "ab", "b"])
matchers = st.builds(
    Matcher,
    any=st.sampled_from([False, False, True]),
    exact=st.frozensets(words, max_size=2),
    prefixes=st.lists(words, max_size=2).map(tuple),
)
ROLES = {"guest": JOIN}


@st.composite
def callers(draw: st.DrawFn) -> CallerPolicy:
    made = [
        AllowEntry(
            name=name,
            projects=draw(st.sampled_from([frozenset({"default"}), frozenset({"default", "second"})])),
            roles=draw(st.sampled_from([frozenset({"guest"}), frozenset()])),
            rooms=draw(matchers),
            identities=draw(matchers),
            default_ttl=draw(st.sampled_from([300, 600])),
        )
        for name in draw(st.permutations(["x", "y", "z"]))[: draw(st.integers(0, 3))]
    ]
    projects = sorted(frozenset().union(*(entry.projects for entry in made)))
    return CallerPolicy(WEB, tuple(made), default_project=draw(st.sampled_from(["", *projects])))


def decisions(policy: Policy) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for room in ("a", "ab", "abc", "b", "c"):
        for identity in ("a", "ab", "b", "c"):
            for project in ("", "default", "second"):
                request = TokenRequest("guest", project=project, room=room, identity=identity)
                decision = decide(policy, policy.callers[WEB], request)
                if isinstance(decision, Grant):
                    found.append((decision.project, decision.entry, decision.ttl))
                else:
                    found.append((decision.reason,))
    return found


@given(callers(), st.data())
@examples(300)
def test_policies_without_a_difference_decide_alike(caller: CallerPolicy, data: st.DataObject) -> None:
    other = data.draw(
        callers() | st.permutations(caller.entries).map(lambda order: replace(caller, entries=tuple(order)))
    )
    old, new = (Policy("r", ROLES, {WEB: one}) for one in (caller, other))
    assert diff(old, old) == []
    if not diff(old, new):
        assert decisions(old) == decisions(new)


# The command


def run(tmp_path: Path, old: str, new: str, *options: str) -> tuple[int, str]:
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "new.yaml").write_text(new)
    result = CliRunner().invoke(app, ["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), *options])
    return result.exit_code, result.output


def test_equal_policies_exit_with_0(tmp_path: Path) -> None:
    assert run(tmp_path, BASE, BASE + "# only a comment\n") == (
        0,
        "No caller gains, loses or has anything differently.\n",
    )
    code, text = run(tmp_path, BASE, BASE, "--json")
    assert (code, json.loads(text)["equal"], json.loads(text)["callers"]) == (0, True, [])


def test_different_policies_exit_with_1_and_say_what_differs(tmp_path: Path) -> None:
    new = BASE.replace("max: 1h", "max: 30m")
    assert run(tmp_path, BASE, new) == (
        1,
        f"{WEB}\n  ~ guests: ttl.max 3600 s -> 1800 s\n0 added, 0 removed, 1 changed.\n",
    )
    code, text = run(tmp_path, BASE, new, "--json")
    change = {"kind": "changed", "entry": "guests", "field": "ttl.max", "value": "1800 s", "was": "3600 s"}
    assert (code, json.loads(text)["callers"]) == (1, [{"caller": WEB, "kind": "changed", "changes": [change]}])


def test_a_program_reads_what_a_request_without_a_project_gets(tmp_path: Path) -> None:
    new = BASE.replace("staff, projects: [default]", "staff, projects: [second]")
    code, text = run(tmp_path, BASE, new, "--json")
    change = {"kind": "lost", "entry": "", "field": "default_project", "value": "PROJECT_REQUIRED", "was": "default"}
    assert (code, json.loads(text)["callers"][0]["changes"][-1]) == (1, change)


def test_any_project_is_the_same_in_both_policies(tmp_path: Path) -> None:
    """Without --config each file by itself would make something else of `any`."""
    text = f"version: 1\ncallers:\n  - id: {WEB}\n    verify: {{tokens: any}}\n"
    more = text + "  - id: dns:a.example\n    verify: {tokens: [b]}\n"
    code, shown_text = run(tmp_path, text, more)
    assert (code, shown_text) == (1, "dns:a.example (added)\n  + verify.tokens b\n1 added, 0 removed, 0 changed.\n")


def test_a_large_policy_is_compared_caller_by_caller(tmp_path: Path) -> None:
    """An edited role shows at each caller that may use it, and only there, wherever the callers stand."""
    callers = [
        {
            "id": f"spiffe://example.org/s-{n}",
            "allow": [
                {
                    "projects": ["default"],
                    "roles": [f"role-{n % 50}"],
                    "rooms": [{"prefix": f"r-{n}-"}],
                    "identities": "any",
                }
            ],
        }
        for n in range(2000)
    ]
    roles: dict[str, Any] = {f"role-{n}": {"video": {"room_join": True}} for n in range(50)}
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"version": 1, "roles": roles, "callers": callers}))
    random.Random(7).shuffle(callers)  # noqa: S311 - the same at every run
    roles["role-7"] = {"video": {"room_join": True, "can_publish": False}}
    new.write_text(json.dumps({"version": 1, "roles": roles, "callers": callers}))
    found = diff(*load_policies([old, new], None))
    assert {caller.caller for caller in found} == {f"spiffe://example.org/s-{n}" for n in range(7, 2000, 50)}
    assert {str(change) for caller in found for change in caller.changes} == {
        "- allow[0]: role role-7 video.can_publish"
    }
