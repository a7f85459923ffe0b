"""No token without its line on the disk, whatever happens to the disk; nobody is stopped by another's denials."""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from livekit_auth import Unavailable
from livekit_auth._connection.config import DEFAULT_TIMEOUT
from livekit_auth.sync import AuthClient
from livekit_auth.v1 import auth_service_pb2 as pb
from support.mounts import small_disk
from support.ports import free_port
from support.probes import Probes
from support.refusals import code_of, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from support.deployment import Deployment

NUMBERS = itertools.count()
ELSEWHERE = pb.IssueTokenRequest(role="guest", room="board", identity="user-1")
WEB = "spiffe://example.org/web"


class Audited:
    """A server whose audit trail is in a folder."""

    def __init__(self, deployment: Deployment, folder: Path, patience: float | None = 5.0) -> None:
        """Without a patience the server has its default one."""
        self.deployment, self.folder, self.path = deployment, folder, folder / "audit.0.jsonl"
        self.metrics = free_port()
        waits = f", patience: {patience}" if patience is not None else ""
        settings = f"audit: {{path: {folder}, required: true{waits}}}\nmetrics: 127.0.0.1:{self.metrics}"
        deployment.write(f"{settings}\nunlisted_limits: []  # so that what bounds the trail is the trail's own")
        deployment.start()
        self.web = deployment.caller(WEB)

    def lines(self, kind: str = "decision") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.path.read_text().splitlines()) if line["kind"] == kind]

    def hashes(self) -> set[str]:
        return {line["token_sha256"] for line in self.lines()}

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as response:
            found = re.search(rf"^livekit_auth_audit_{name} (\S+)$", response.read().decode(), re.MULTILINE)
        assert found, name
        return float(found[1])

    def heads(self) -> list[str]:
        """The heads in the log."""
        return [json.loads(line)["head"] for line in self.deployment.log.splitlines() if '"event":"audit head"' in line]

    def verify(self) -> subprocess.CompletedProcess[str]:
        """What `audit verify` says of the folder, held against every head in the log."""
        heads = [option for head in self.heads() for option in ("--head", head)]
        command = [sys.executable, "-m", "livekit_auth_server.cli", "audit", "verify", self.folder, *heads]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def audited(deployment: Deployment, tmp_path: Path) -> Audited:
    return Audited(deployment, tmp_path / "audit")


def ask() -> pb.IssueTokenRequest:
    """A request like no other: two alike within a second get the same token."""
    return pb.IssueTokenRequest(role="guest", room="consult-1", identity=f"user-{next(NUMBERS)}")


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def unavailable(web: AuthServiceStub) -> None:
    got = refusal(lambda: web.IssueToken(ask()))
    assert (got.code, got.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
    assert got.message == "the decision can't be recorded, so nothing is issued"


def issued(web: AuthServiceStub) -> str | None:
    """A token, None when none is issued."""
    try:
        return str(web.IssueToken(ask()).token)
    except grpc.RpcError:
        return None


def recovered(web: AuthServiceStub, within: float = 5.0) -> str:
    """The first token that is issued again."""
    deadline = time.monotonic() + within
    while (token := issued(web)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return token


def test_every_token_has_its_line_when_it_leaves(audited: Audited) -> None:
    for _ in range(20):
        assert digest(audited.web.IssueToken(ask()).token) in audited.hashes()
    batch = audited.web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ask(), ELSEWHERE, ask()]))
    tokens = {digest(result.response.token) for result in batch.results if result.response.token}
    assert len(tokens) == 2
    assert tokens < audited.hashes()
    assert audited.metric("up") == 1
    assert audited.deployment.stop() == 0
    done = audited.verify()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(audited.heads()) == 2  # at start and at stop


@pytest.mark.slow  # in the fast suite: unit/audit/test_verify.py
def test_tampering_before_the_last_head_shows(audited: Audited) -> None:
    for _ in range(5):
        audited.web.IssueToken(ask())
    assert audited.deployment.stop() == 0
    whole = audited.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for harmed in (
        whole.replace(b"consult-1", b"consult-2", 1),
        b"".join(lines[:-1]),
        b"".join(lines[:2] + lines[3:]),
        b"".join(lines[:2] + lines[1:]),
    ):
        audited.path.write_bytes(harmed)
        assert audited.verify().returncode == 1


@pytest.mark.slow  # in the fast suite: unit/audit/test_chained_file.py
def test_a_full_disk_stops_issuance_alone_and_it_recovers_by_itself(deployment: Deployment, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        audited = Audited(deployment, disk)
        hooks = deployment.caller("spiffe://example.org/hooks")
        first = audited.web.IssueToken(ask()).token
        (disk / "filler").write_bytes(b"x" * (256 * 1024 - audited.path.stat().st_size - 16 * 1024))
        got = {first}
        while (token := issued(audited.web)) is not None:
            got.add(token)
        unavailable(audited.web)
        batch = audited.web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ask(), ELSEWHERE]))
        assert [result.error.code for result in batch.results] == [14, 7]
        assert refusal(lambda: audited.web.IssueToken(ELSEWHERE)).reason == "ROOM_NOT_PERMITTED"
        assert audited.web.GetCaller(pb.GetCallerRequest()).listed
        assert hooks.VerifyToken(pb.VerifyTokenRequest(token=first)).key_id == "APIalpha"
        assert audited.metric("up") == 0
        [why] = Probes(audited.metrics).state()["reasons"]
        assert why == f"the audit trail can't be written: the disk is full ({audited.path})"
        said = [json.loads(line) for line in deployment.log.splitlines() if '"event":"the audit trail can' in line]
        assert {(line["why"], line["path"]) for line in said} == {("the disk is full", str(audited.path))}
        (disk / "filler").unlink()
        got.add(recovered(audited.web))
        assert audited.metric("up") == 1
        assert {digest(one) for one in got} <= audited.hashes()
        assert deployment.stop() == 0
        assert audited.verify().returncode == 0


@pytest.mark.slow  # in the fast suite: unit/audit/test_chained_file.py
def test_a_removed_file_fails_the_call_at_hand_and_shows(audited: Audited) -> None:
    audited.web.IssueToken(ask())
    audited.path.unlink()
    unavailable(audited.web)
    assert digest(audited.web.IssueToken(ask()).token) in audited.hashes()
    assert "the file was removed" in audited.deployment.log
    assert [line["why"] for line in audited.lines("segment")] == ["the file before was removed"]
    assert audited.verify().returncode == 1


@pytest.mark.slow  # in the fast suite: unit/audit/test_chained_file.py
def test_rotation_by_rename_fails_no_call(audited: Audited) -> None:
    tokens = set()
    for number in range(4):
        tokens |= {digest(audited.web.IssueToken(ask()).token) for _ in range(5)}
        audited.path.rename(audited.path.with_name(f"audit.0.jsonl.{number}"))
    tokens.add(digest(audited.web.IssueToken(ask()).token))
    text = "".join(path.read_text() for path in audited.folder.iterdir())
    assert {one for one in tokens if one in text} == tokens
    assert audited.deployment.stop() == 0
    assert audited.verify().returncode == 0


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Servers whose fdatasync hangs while it is told so."""
    code, flag = tmp_path / "code", tmp_path / "hang"
    code.mkdir()
    (code / "sitecustomize.py").write_text(f"""
import os, time
real = os.fdatasync
def fdatasync(descriptor):
    while os.path.exists({str(flag)!r}):
        time.sleep(0.01)
    return real(descriptor)
os.fdatasync = fdatasync
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH")))))

    def hang(on: bool) -> None:  # noqa: FBT001 - a switch
        flag.touch() if on else flag.unlink()

    yield hang
    flag.unlink(missing_ok=True)


@pytest.mark.slow  # in the fast suite: unit/audit/test_audit_file.py
def test_a_hung_disk_stops_issuance_within_the_patience(
    deployment: Deployment, tmp_path: Path, hanging: Callable[[bool], None]
) -> None:
    audited = Audited(deployment, tmp_path / "audit", patience=1.0)
    audited.web.IssueToken(ask())
    hanging(True)
    started = time.monotonic()
    calls = [audited.web.IssueToken.future(ask()) for _ in range(50)]
    time.sleep(0.2)
    assert audited.web.GetCaller(pb.GetCallerRequest(), timeout=0.8).listed  # the server itself doesn't hang
    reasons = {code_of(call.exception(timeout=10)) for call in calls}
    assert reasons == {grpc.StatusCode.UNAVAILABLE}
    assert time.monotonic() - started < 2.5
    started = time.monotonic()
    unavailable(audited.web)
    assert time.monotonic() - started < 0.5
    assert audited.metric("up") == 0
    hanging(False)
    token = recovered(audited.web)
    records, withheld = audited.lines(), {line["decision_id"] for line in audited.lines("withheld")}
    left = [line for line in records if line["permitted"] and line["decision_id"] not in withheld]
    assert len(left) == 2  # every other token that has a record is said not to have left
    assert left[-1]["token_sha256"] == digest(token)
    assert deployment.stop() == 0
    assert audited.verify().returncode == 0


@pytest.mark.slow
def test_a_client_with_the_default_timeout_hears_of_a_hung_disk(
    deployment: Deployment, tmp_path: Path, hanging: Callable[[bool], None]
) -> None:
    Audited(deployment, tmp_path / "audit", patience=None).web.IssueToken(ask())
    cert, key = deployment.example_ca.issue(uris=[WEB]).write(tmp_path, "web")
    ca = deployment.directory / "server-ca.pem"
    with AuthClient(f"localhost:{deployment.port}", ca=ca, cert=cert, key=key) as client:
        hanging(True)
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            client.issue_token(role="guest", room="consult-1", identity="user-1")
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
    assert time.monotonic() - started < DEFAULT_TIMEOUT


def test_server_with_a_hung_disk_still_stops(
    deployment: Deployment, tmp_path: Path, hanging: Callable[[bool], None]
) -> None:
    audited = Audited(deployment, tmp_path / "audit", patience=0.5)
    hanging(True)
    unavailable(audited.web)
    started = time.monotonic()
    assert deployment.stop() == 0
    assert time.monotonic() - started < 5


def test_a_call_whose_deadline_passes_leaves_no_claim_that_it_got_a_token(
    deployment: Deployment, tmp_path: Path, hanging: Callable[[bool], None]
) -> None:
    audited = Audited(deployment, tmp_path / "audit", patience=5)
    hanging(True)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            audited.web.IssueToken(ask(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    time.sleep(0.2)
    hanging(False)
    token = recovered(audited.web)
    time.sleep(0.2)
    withheld = {line["decision_id"] for line in audited.lines("withheld")}
    left = [line["token_sha256"] for line in audited.lines() if line["decision_id"] not in withheld]
    assert left == [digest(token)]


@pytest.mark.slow  # in the fast suite: unit/audit/test_audit_file.py
def test_floods_of_denials_are_counted_and_stop_nobody(audited: Audited) -> None:
    """Of a listed caller and of strangers, IssueToken and batches, from 8 threads for 3 seconds."""
    deployment = audited.deployment
    listed = deployment.caller("spiffe://example.org/hooks")
    strangers = [deployment.caller(f"spiffe://example.org/stranger/{n}") for n in range(3)]
    over, denied = threading.Event(), {"listed": 0, "unlisted": 0}
    lock = threading.Lock()

    def flood(kind: str, stub: AuthServiceStub) -> None:
        count = 0
        batch = pb.BatchIssueTokensRequest(requests=[ask()])
        while not over.is_set():
            if count % 2:
                assert refusal(lambda: stub.IssueToken(ask())).code == "PERMISSION_DENIED"
            elif kind == "listed":
                assert stub.BatchIssueTokens(batch).results[0].error.code == 7
            else:
                assert refusal(lambda: stub.BatchIssueTokens(batch)).code == "PERMISSION_DENIED"
            count += 1
        with lock:
            denied[kind] += count

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        floods = [pool.submit(flood, "listed", listed) for _ in range(4)]
        floods += [pool.submit(flood, "unlisted", stranger) for stranger in strangers]
        started, slowest, tokens = time.monotonic(), 0.0, []
        try:
            while time.monotonic() - started < 3:
                began = time.monotonic()
                tokens.append(audited.web.IssueToken(ask(), timeout=5).token)
                slowest = max(slowest, time.monotonic() - began)
        finally:
            over.set()
        for one in floods:
            one.result()
    seconds = time.monotonic() - started
    assert deployment.stop() == 0
    assert slowest < 1.0
    assert {digest(token) for token in tokens} <= audited.hashes()
    lines, counted = [line for line in audited.lines() if not line["permitted"]], audited.lines("denials")
    for kind, is_listed in (("listed", True), ("unlisted", False)):
        alone = [line for line in lines if (line["reason"] != "CALLER_NOT_LISTED") is is_listed]
        together = [line for line in counted if line["listed"] is is_listed]
        assert len(alone) + sum(line["count"] for line in together) == denied[kind]
        assert denied[kind] > 100
        assert len(alone) <= 10 * (seconds + 1.5)
        assert len(together) <= seconds + 2
    assert len(deployment.log.splitlines()) < 100  # nor do they fill the log
    assert audited.verify().returncode == 0


def test_a_start_on_a_full_disk_says_that_it_is_full(deployment: Deployment, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        (disk / "filler").write_bytes(b"x" * 64 * 1024)
        deployment.write(f"audit: {{path: {disk}, required: true}}")
        done = serve(deployment)
    assert done.returncode == 2
    assert f"{disk}/audit.0.jsonl: the audit trail can't be kept here: the disk is full" in done.stderr


def serve(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    command = deployment.command("serve")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow  # in the fast suite: unit/audit/test_chained_file.py
def test_a_second_server_on_the_same_folder_is_refused(audited: Audited) -> None:
    settings = audited.deployment.directory / "server.yaml"
    settings.write_text(settings.read_text().replace(f"metrics: 127.0.0.1:{audited.metrics}", ""))
    done = serve(audited.deployment)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("livekit-auth-server: ")
    assert "audit.0.jsonl: the audit trail can't be kept here: another process writes this file" in done.stderr
    assert audited.web.IssueToken(ask()).token


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("audit: {required: true}", "audit: required needs a path"),
        ("audit: {path: server.pem}", "the audit trail can't be kept here: "),
        ("audit: {path: audit, patience: 0}", "audit.patience: should be at least 0.1"),
        ("audit: {path: /proc/audit}", "the audit trail can't be kept here: "),
    ],
)
def test_unusable_audit_settings_are_a_readable_error(deployment: Deployment, settings: str, expected: str) -> None:
    deployment.write(settings)
    done = serve(deployment)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert expected in done.stderr


@pytest.mark.slow  # in the fast suite: unit/audit/test_chained_file.py
def test_chain_continues_after_a_kill_and_restart(audited: Audited) -> None:
    deployment = audited.deployment
    first = audited.web.IssueToken(ask()).token
    assert deployment.process is not None
    deployment.process.send_signal(signal.SIGKILL)
    deployment.process.wait(10)
    with audited.path.open("ab") as stream:
        stream.write(b'{"chain":"0123')  # as if killed within a line
    deployment.start()
    second = deployment.caller(WEB).IssueToken(ask()).token
    assert {digest(first), digest(second)} == audited.hashes()
    assert deployment.stop() == 0
    assert audited.verify().returncode == 0
