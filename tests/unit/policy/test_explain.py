"""`policy explain`: the operator reads what would have been permitted; the caller doesn't."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.cli.app import app
from livekit_auth_server.core.policy import Denial, decide
from livekit_auth_server.policy.explain import explain
from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.service.convert import token_request

if TYPE_CHECKING:
    from pathlib import Path

WEB = "spiffe://example.org/web"
POLICY = """\
version: 1
roles:
  guest: {video: {room_join: true}}
  worker: {video: {agent: true}}
callers:
  - id: spiffe://example.org/web
    allow:
      - name: consult
        projects: [default]
        roles: [guest]
        rooms: [{prefix: consult-}, {exact: lobby}]
        identities: [{prefix: user-}]
        ttl: {default: 10m, max: 30m}
      - name: fleet
        projects: [default]
        roles: [worker]
        powers: [agent]
        rooms: any
        ttl: {default: 5m, max: 10m}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def explained(path: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["policy", "explain", str(path), "--caller", WEB, *options])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("options", "permitted"),
    [
        (["--room", "board", "--identity", "user-1"], "(permitted rooms: exact lobby, prefix consult-)"),
        (["--room", "lobby", "--identity", "ada"], "(permitted identities: prefix user-)"),
        (["--room", "lobby", "--identity", "user-1", "--ttl", "2h"], "(permitted ttl: up to 1800 s)"),
    ],
)
def test_it_names_what_would_have_been_permitted(path: Path, options: list[str], permitted: str) -> None:
    code, output = explained(path, "--role", "guest", *options)
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("  consult lacks:")]
    assert permitted in line
    assert line.count("(permitted") == 1


def test_it_names_the_roles_of_every_entry_that_lacks_the_one_asked_for(path: Path) -> None:
    _, output = explained(path, "--role", "host", "--room", "lobby", "--identity", "user-1")
    assert 'consult lacks: role "host" isn\'t one that you may use here (permitted roles: guest)' in output
    assert 'fleet lacks: role "host" isn\'t one that you may use here (permitted roles: worker)' in output


def test_json_has_it_for_each_entry(path: Path) -> None:
    _, output = explained(path, "--role", "guest", "--room", "board", "--identity", "user-1", "--json")
    assert json.loads(output)["permits"]["consult"] == {
        "roles": ["guest"],
        "rooms": ["exact lobby", "prefix consult-"],
        "identities": ["prefix user-"],
        "max_ttl_seconds": 1800,
    }


@pytest.mark.parametrize(
    ("default", "options", "told"),
    [
        ("", (), (1, "denied: PROJECT_REQUIRED: name one of your projects: default, second\n")),
        ("second", (), (0, "permitted by consult in project second, for 600 s\n")),
        ("second", ("--project", "default"), (0, "permitted by consult in project default, for 600 s\n")),
    ],
)
def test_a_request_without_a_project_is_for_the_default_one(
    path: Path, default: str, options: tuple[str, ...], told: tuple[int, str]
) -> None:
    path.write_text(POLICY.replace("projects: [default]", "projects: [default, second]"))
    if default:
        path.write_text(f"{path.read_text()}    default_project: {default}\n")
    assert explained(path, "--role", "guest", "--room", "lobby", "--identity", "user-1", *options) == told


def test_an_expectation_without_a_project_is_for_the_default_one(path: Path) -> None:
    path.write_text(POLICY.replace("projects: [default]", "projects: [default, second]", 1))
    path.with_name("policy.test.yaml").write_text(
        "version: 1\nexpect:\n"
        f"  - {{name: guests, caller: {WEB}, outcome: permit, "
        "request: {role: guest, room: lobby, identity: user-1}}\n"
    )
    run = CliRunner().invoke
    failed = run(app, ["policy", "test", str(path)])
    assert (failed.exit_code, "got deny: PROJECT_REQUIRED" in failed.output) == (1, True)
    path.write_text(path.read_text() + "    default_project: default\n")
    assert run(app, ["policy", "test", str(path)]).exit_code == 0


def test_check_lists_the_default_project_and_whose_decisions_a_caller_reads(path: Path) -> None:
    path.write_text(POLICY + "    default_project: default\n    read_decisions: any\n")
    checked = CliRunner().invoke(app, ["policy", "check", str(path), "--strict"])
    assert checked.exit_code == 0
    assert "  spiffe://example.org/web: roles guest, worker; default project default; reads decisions of default\n" in (
        checked.output
    )


def test_a_caller_without_entries_and_an_unlisted_one_are_explained(path: Path) -> None:
    policy = load_policy(path, None)
    request = pb.IssueTokenRequest(role="guest", room="board", identity="user-1")
    assert explain(policy, "spiffe://example.org/nobody", request).permits == ()
    no_project = pb.IssueTokenRequest(role="guest", room="board", identity="user-1", project="other")
    assert explain(policy, WEB, no_project).reason in {"PROJECT_NOT_PERMITTED", "ROOM_NOT_PERMITTED"}


def test_no_remote_caller_hears_of_the_rooms_or_identities_that_others_use(path: Path) -> None:
    """What `decide` hands on to the answer; `explain` alone adds the entry's own words."""
    policy = load_policy(path, None)
    for request in (
        pb.IssueTokenRequest(role="guest", room="board", identity="user-1"),
        pb.IssueTokenRequest(role="guest", room="lobby", identity="ada"),
    ):
        denial = decide(policy, policy.callers[WEB], token_request(request))
        assert isinstance(denial, Denial)
        said = f"{denial.message} {dict(denial.metadata)}"
        assert not [word for word in ("consult-", "lobby", "user-") if word in said]
