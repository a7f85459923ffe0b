"""A policy, a candidate policy and a deny-list as JSON: served, reloaded, and read by commands."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from livekit_auth.v1 import auth_service_pb2 as pb
from support import command_line
from support.deployment import POLICY, Deployment
from support.refusals import refusal
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

WEB = "spiffe://example.org/web"
ASK = pb.IssueTokenRequest(project="alpha", role="guest", room="consult-1", identity="user-1")


def as_json(text: str) -> str:
    return json.dumps(YAML(typ="safe").load(StringIO(text)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    deployment.write("shadow_policy: candidate.json")
    (tmp_path / "policy.json").write_text(as_json(POLICY))
    (tmp_path / "candidate.json").write_text(as_json(POLICY))
    (tmp_path / "deny.json").write_text('{"version": 1, "deny": []}')
    settings = tmp_path / "server.yaml"
    text = settings.read_text().replace("policy: policy.yaml", "policy: policy.json")
    settings.write_text(text.replace("dns_bundle: dns.pem\n", "dns_bundle: dns.pem\n  deny_list: deny.json\n"))
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


def first_room(stub: AuthServiceStub) -> str:
    """The prefix of the first room that the policy in force permits."""
    return stub.ListPermissions(pb.ListPermissionsRequest()).entries[0].rooms[0].prefix


def test_json_files_are_served_and_reloaded(server: Deployment) -> None:
    stub, folder = server.caller(WEB), server.directory
    assert stub.IssueToken(ASK).token
    (folder / "policy.json").write_text(as_json(POLICY.replace("prefix: consult-", "prefix: board-")))
    eventually(lambda: first_room(stub) == "board-")
    assert refusal(lambda: stub.IssueToken(ASK)).reason == "ROOM_NOT_PERMITTED"
    (folder / "policy.json").write_text("{")
    eventually(lambda: "policy.json" in server.log and "isn't valid JSON" in server.log)
    assert first_room(stub) == "board-"
    deny = {"version": 1, "deny": [{"id": stub.GetCaller(pb.GetCallerRequest()).workload_id}]}
    (folder / "deny.json").write_text(json.dumps(deny))
    eventually(lambda: refusal(lambda: stub.IssueToken(ASK)).reason == "CERTIFICATE_REVOKED")


def test_commands_read_json_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(as_json(POLICY))
    new.write_text(as_json(POLICY.replace("prefix: consult-", "prefix: board-")))
    assert command_line.run(monkeypatch, "policy", "check", old) == 0
    assert command_line.run(monkeypatch, "policy", "diff", old, new) == 1
    assert "board-" in capfd.readouterr().out
    old.write_text("[1")
    assert command_line.run(monkeypatch, "policy", "check", old) == 2
    assert "old.json:1: isn't valid JSON" in capfd.readouterr().err.replace("\n", " ")
