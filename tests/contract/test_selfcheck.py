"""The self-check of a real server: what a difference from livekit-api does, and what its child leaves behind.

The child's livekit-api is the real one. While a file named `switch` is there, it mints every token with another name.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import livekit.api
import psutil
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support import command_line
from support.deployment import POLICY, SECRETS, Deployment
from support.ports import free_port
from support.probes import Probes
from support.refusals import refusal
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
LONG = 60.0  # seconds that a check may take on a busy machine

# Runs the code of the real package under its own name, and then changes it.
FAKE = """
import pathlib, time
from os.path import dirname, exists
__path__ = [{real!r}]
exec(compile(pathlib.Path({real!r}, "__init__.py").read_text(), "livekit/api/__init__.py", "exec"))
from livekit.api import access_token
mint = access_token.AccessToken.to_jwt
def to_jwt(self):
    if exists({switch!r}):
        self.claims.name += " the second"
    return mint(self)
access_token.AccessToken.to_jwt = to_jwt
while exists({hang!r}):
    time.sleep(0.1)
if exists({broken!r}):
    raise ImportError
"""


@dataclass
class Checked:
    """A deployment whose child has the changed livekit-api, and what can be seen of it."""

    deployment: Deployment
    probes: Probes

    def start(self, mode: str, extra: str = "") -> None:
        self.deployment.selfcheck = mode
        self.deployment.write(f"metrics: 127.0.0.1:{self.probes.port}\n{extra}")
        self.deployment.start()

    def switch(self, name: str, *, on: bool) -> None:
        path = self.deployment.directory / name
        path.touch() if on else path.unlink()

    def lines(self, event: str) -> list[dict[str, Any]]:
        log = (json.loads(line) for line in self.deployment.log.splitlines())
        return [line for line in log if line["event"] == event]

    def until(self, event: str, count: int = 1) -> dict[str, Any]:
        eventually(lambda: len(self.lines(event)) >= count, LONG)
        return self.lines(event)[-1]

    def reload(self, policy: str) -> None:
        """Puts a policy in place; the check follows by itself."""
        before = len(self.lines("reloaded"))
        (self.deployment.directory / "policy.yaml").write_text(policy)
        eventually(lambda: len(self.lines("reloaded")) > before)

    def metric(self, name: str) -> set[str]:
        """The values of this metric's label that are above zero."""
        found = (line for line in self.probes.metrics().splitlines() if line.startswith(f"livekit_auth_{name}{{"))
        return {line.split('"')[1] for line in found if float(line.split()[-1])}

    def children(self) -> list[psutil.Process]:
        """The children that check."""
        with suppress(psutil.Error):
            return [
                child
                for child in psutil.Process(self.deployment.started.pid).children(recursive=True)
                if "livekit_auth_server.selfcheck.child" in child.cmdline()
            ]
        return []

    @property
    def web(self) -> AuthServiceStub:
        return self.deployment.caller("spiffe://example.org/web")

    @property
    def admin(self) -> AuthServiceStub:
        return self.deployment.caller("spiffe://example.org/admin")


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checked]:
    fake, files = tmp_path / "code/livekit/api", tmp_path / "files"
    fake.mkdir(parents=True)
    files.mkdir()
    real = str(Path(livekit.api.__file__).parent)
    switches = {name: str(files / name) for name in ("switch", "hang", "broken")}
    (fake / "__init__.py").write_text(FAKE.format(real=real, **switches))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    found = Checked(Deployment(files), Probes(free_port()))
    yield found
    if found.deployment.process is not None:
        found.deployment.stop()


def no_secret_shows(server: Checked) -> None:
    for secret in SECRETS.values():
        assert secret not in server.deployment.log
    assert "eyJ" not in server.deployment.log


@pytest.mark.slow
def test_a_server_that_agrees_with_livekit_api_says_so(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The serving process itself never loads livekit-api, nor aiohttp with it."""
    checked.start("warn")
    line = checked.until("selfcheck passed")
    assert (line["keys"], line["tokens"]) == (3, 11)
    assert checked.metric("selfcheck_status") == {"passed"}
    assert checked.metric("selfcheck_differences") == set()
    assert checked.probes.state() == {"ready": True, "reasons": [], "warnings": []}
    assert "aiohttp" not in Path(f"/proc/{checked.deployment.started.pid}/maps").read_text()
    no_secret_shows(checked)
    assert check(checked, monkeypatch) == 0
    assert "selfcheck: 11 tokens and 3 keys agree with livekit-api" in capfd.readouterr().out


def check(server: Checked, monkeypatch: pytest.MonkeyPatch, *options: str) -> object:
    return command_line.run(monkeypatch, "check", "--config", server.deployment.directory / "server.yaml", *options)


@pytest.mark.slow
def test_a_difference_is_shown_and_stops_nothing_by_default(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checked.switch("switch", on=True)
    checked.start("warn")
    line = checked.until("selfcheck found differences")
    assert line["found"].startswith('14 differences from livekit-api: token of role "guest": name; token of role')
    assert checked.metric("selfcheck_status") == {"different"}
    assert checked.metric("selfcheck_differences") == {"token", "verification"}
    state = checked.probes.state()
    assert state["ready"]
    assert state["warnings"] == [f"selfcheck: {line['found']}"]
    assert checked.web.IssueToken(ASK).token
    no_secret_shows(checked)
    assert check(checked, monkeypatch) == 0
    shown = capfd.readouterr()
    assert 'differs from livekit-api: token of role "guest": name' in shown.out
    assert "WARNING selfcheck: " in shown.err
    assert check(checked, monkeypatch, "--strict") == 1


def test_an_enforced_difference_stops_issuing_until_a_check_passes(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checked.start("enforce")
    assert len(checked.lines("selfcheck passed")) == 1, "before the port opened"
    web, admin = checked.web, checked.admin
    token = web.IssueToken(ASK).token
    checked.switch("switch", on=True)
    checked.reload(POLICY.replace("prefix: consult-", "prefix: ward-"))
    assert refusal(lambda: web.IssueToken(ASK)).reason == "ROOM_NOT_PERMITTED", "in force before its check has ended"
    checked.until("selfcheck found differences")
    asked = pb.IssueTokenRequest(role="guest", room="ward-1", identity="user-1")
    refused = refusal(lambda: web.IssueToken(asked))
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "SELFCHECK_FAILED")
    assert checked.deployment.audit(refused.metadata["decision_id"])["reason"] == "SELFCHECK_FAILED"
    batch = web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[asked, ASK]))
    assert ["SELFCHECK_FAILED" in str(result.error) for result in batch.results] == [True, False]
    assert admin.VerifyToken(pb.VerifyTokenRequest(token=token)).identity == "user-1"
    state = checked.probes.state()
    assert not state["ready"]
    assert state["reasons"][0].startswith("selfcheck: ")
    no_secret_shows(checked)
    assert check(checked, monkeypatch) == 2
    assert "livekit-auth-server: selfcheck: " in capfd.readouterr().err
    checked.switch("switch", on=False)
    checked.reload(POLICY)
    checked.until("selfcheck passed", 2)
    assert web.IssueToken(ASK).token
    assert checked.probes.ready()


def test_a_difference_at_the_start_is_known_before_the_port_opens(checked: Checked) -> None:
    checked.switch("switch", on=True)
    checked.start("enforce")
    assert refusal(lambda: checked.web.IssueToken(ASK)).reason == "SELFCHECK_FAILED"


@pytest.mark.slow
def test_a_check_that_cannot_run_stops_nothing(checked: Checked) -> None:
    checked.switch("broken", on=True)
    checked.start("enforce")
    assert checked.until("selfcheck didn't run")["why"] == "livekit-api can't be imported"
    assert checked.metric("selfcheck_status") == {"not_run"}
    assert checked.probes.state()["warnings"] == ["selfcheck didn't run: livekit-api can't be imported"]
    assert checked.web.IssueToken(ASK).token


@pytest.mark.slow
def test_a_reload_during_a_check_ends_its_child(checked: Checked) -> None:
    checked.switch("hang", on=True)
    checked.start("warn")
    eventually(checked.children, LONG)
    [first] = checked.children()
    checked.reload(POLICY + "# changed\n")
    eventually(lambda: not first.is_running() and checked.children(), LONG)
    checked.switch("hang", on=False)
    checked.until("selfcheck passed")


@pytest.mark.slow
def test_a_server_that_is_killed_takes_its_child_with_it(checked: Checked) -> None:
    checked.switch("hang", on=True)
    checked.start("warn")
    eventually(checked.children, LONG)
    [child] = checked.children()
    checked.deployment.started.send_signal(signal.SIGKILL)
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_workers_check_one_after_the_other(checked: Checked) -> None:
    checked.start("enforce", "workers: 2\n")
    assert len(checked.lines("selfcheck passed")) == 2
    assert checked.probes.ready()
    checked.deployment.started.send_signal(signal.SIGHUP)
    most = 0
    while len(checked.lines("selfcheck passed")) < 4:
        most = max(most, len(checked.children()))
    assert most == 1
