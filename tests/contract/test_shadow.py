"""A candidate policy on a real server: reloaded by itself, reported when it can't be used, without any say."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import POLICY, Deployment
from support.refusals import refusal
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
BOARD = pb.IssueTokenRequest(role="guest", room="board-1", identity="user-1")
WEB = "spiffe://example.org/web"
STRICTER = POLICY.replace("prefix: consult-", "prefix: board-")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Deployment]:
    """A server that isn't started yet, whose candidate is the policy in force."""
    deployment = Deployment(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        deployment.write(f"metrics: 127.0.0.1:{probe.getsockname()[1]}\nshadow_policy: candidate.yaml")
    (tmp_path / "candidate.yaml").write_text(POLICY)
    yield deployment
    assert deployment.stop() == 0


def metrics(server: Deployment) -> str:
    address = (server.directory / "server.yaml").read_text().split("metrics: ")[1].split()[0]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        return response.read().decode()


def soon(condition: Callable[[], bool]) -> None:
    eventually(condition, 5)


def counted(server: Deployment, kind: str) -> float:
    line = next(
        line for line in metrics(server).splitlines() if line.startswith(f'livekit_auth_shadow_total{{kind="{kind}"}}')
    )
    return float(line.split()[-1])


def loaded(server: Deployment, times: int) -> bool:
    return f'livekit_auth_reload_total{{kind="shadow",outcome="ok"}} {times}.0' in metrics(server)


def test_a_candidate_is_counted_and_logged_and_has_no_say(server: Deployment) -> None:
    server.start()
    stub = server.caller(WEB)
    soon(lambda: loaded(server, 1))
    assert stub.IssueToken(ASK).token
    assert (counted(server, "same"), counted(server, "would_deny")) == (1, 0)
    (server.directory / "candidate.yaml").write_text(STRICTER)
    soon(lambda: loaded(server, 2))
    revision = stub.GetCaller(pb.GetCallerRequest()).policy_revision
    issued = stub.IssueToken(ASK)
    assert issued.token
    assert issued.policy_revision == revision
    assert refusal(lambda: stub.IssueToken(BOARD)).reason == "ROOM_NOT_PERMITTED"
    results = stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ASK, BOARD])).results
    assert [result.WhichOneof("outcome") for result in results] == ["response", "error"]
    assert (counted(server, "would_deny"), counted(server, "would_allow"), counted(server, "error")) == (2, 2, 0)
    line = next(line for line in server.log.splitlines() if "candidate policy decides otherwise" in line)
    assert issued.decision_id in line
    assert issued.token not in server.log


def test_a_candidate_that_cant_be_used_doesnt_stop_the_start_and_is_reported(server: Deployment) -> None:
    path = server.directory / "candidate.yaml"
    path.write_text("version: 1\ncallers: none\n")
    server.start()
    stub = server.caller(WEB)
    assert stub.IssueToken(ASK).token
    soon(lambda: 'livekit_auth_reload_failed{kind="shadow"} 1.0' in metrics(server))
    assert "candidate.yaml:2: callers: should be a list" in server.log
    path.write_text(STRICTER)
    soon(lambda: loaded(server, 1))
    assert 'livekit_auth_reload_failed{kind="shadow"} 0.0' in metrics(server)
    assert stub.IssueToken(ASK).token
    assert counted(server, "would_deny") == 1


@pytest.mark.slow  # in the fast suite: unit/reload/test_reloader.py
def test_broken_candidate_keeps_the_last_good_one(server: Deployment) -> None:
    path = server.directory / "candidate.yaml"
    path.write_text(STRICTER)
    server.start()
    stub = server.caller(WEB)
    soon(lambda: loaded(server, 1))
    path.unlink()
    soon(lambda: 'livekit_auth_reload_failed{kind="shadow"} 1.0' in metrics(server))
    assert stub.IssueToken(ASK).token
    assert counted(server, "would_deny") == 1
