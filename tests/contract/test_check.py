"""`check` finds what `serve` would refuse, warns of what it would start with to nobody's good, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.cli.check import summary
from livekit_auth_server.config.settings import load_settings
from livekit_auth_server.files.errors import ConfigError
from support import command_line
from support.deployment import POLICY
from support.ports import free_port
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.deployment import Deployment


def add(deployment: Deployment, text: str) -> None:
    path = deployment.directory / "server.yaml"
    path.write_text(path.read_text() + text + "\n")


def warnings(deployment: Deployment) -> list[str]:
    found: list[str] = summary(load_settings(deployment.directory / "server.yaml"))["warnings"]
    return found


def mistake(deployment: Deployment) -> str:
    with pytest.raises(ConfigError) as caught:
        summary(load_settings(deployment.directory / "server.yaml"))
    return str(caught.value)


def run(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *options: str) -> object:
    return command_line.run(monkeypatch, "check", "--config", deployment.directory / "server.yaml", *options)


def test_valid_deployment_has_no_warnings(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warnings(deployment) == []
    assert run(deployment, monkeypatch, "--strict") == 0


def test_warnings_are_shown_and_exit_with_1_when_it_is_strict(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (deployment.directory / "policy.yaml").write_text(POLICY.replace("prefix: consult-", 'prefix: "consult-*"'))
    assert run(deployment, monkeypatch) == 0
    shown = capfd.readouterr()
    assert "would serve, with warnings." in shown.out
    assert shown.err.startswith("WARNING policy: spiffe://example.org/web, consult, rooms: the * in")
    assert run(deployment, monkeypatch, "--strict", "--json") == 1
    shown = capfd.readouterr()
    assert len(json.loads(shown.out)["warnings"]) == 1
    assert shown.err == ""


@pytest.mark.parametrize(
    ("extra", "module", "setting"),
    [
        ("redis", "redis.asyncio", "redis: {url: redis://127.0.0.1:1}"),
        ("otlp", "opentelemetry.exporter.otlp.proto.http.trace_exporter", "tracing: {endpoint: http://127.0.0.1:1/v1}"),
        ("spiffe", "spiffe", "workload_api: {socket: unix:///none}"),
    ],
)
def test_missing_extra_is_an_error(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, extra: str, module: str, setting: str
) -> None:
    add(deployment, setting)
    if extra == "spiffe":
        path = deployment.directory / "server.yaml"
        path.write_text(path.read_text().replace("dns.pem\n", "dns.pem\n  workload_api: [third.org]\n"))
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install '" in mistake(deployment)


@pytest.mark.parametrize("place", ["policy.yaml", "policy.yaml/trail", "a-device"])
def test_audit_path_that_cannot_be_a_folder_is_an_error(deployment: Deployment, place: str) -> None:
    (deployment.directory / "a-device").symlink_to("/dev/null")
    add(deployment, f"audit: {{path: {place}}}")
    assert "the audit trail can't be kept here" in mistake(deployment)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_unwritable_audit_folder_is_an_error(deployment: Deployment, what: str) -> None:
    trail = deployment.directory / "trail"
    trail.mkdir()
    (trail / "audit.0.jsonl").touch()
    add(deployment, "audit: {path: trail}")
    (trail if what == "folder" else trail / "audit.0.jsonl").chmod(0o500)
    assert "can't be written" in mistake(deployment)


def test_audit_folder_without_write_permission_is_an_error(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(deployment, "audit: {path: trail}")
    monkeypatch.setattr(os, "access", lambda path, *_: path != deployment.directory)
    assert mistake(deployment).endswith(f"{deployment.directory} can't be written")


def test_audit_file_that_is_not_a_file_is_an_error(deployment: Deployment) -> None:
    (deployment.directory / "trail").mkdir()
    os.mkfifo(deployment.directory / "trail" / "audit.0.jsonl")
    add(deployment, "audit: {path: trail}")
    assert mistake(deployment).endswith("it isn't a plain file")


def test_nothing_is_left_behind(deployment: Deployment) -> None:
    add(deployment, f"audit: {{path: new/trail}}\nworkers: 2\nmetrics: 127.0.0.1:{free_port()}")
    before = sorted(deployment.directory.rglob("*"))
    assert warnings(deployment) == []
    assert sorted(deployment.directory.rglob("*")) == before


def test_address_in_use_is_a_warning(deployment: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path, address = deployment.directory / "server.yaml", f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(path.read_text().replace("127.0.0.1:0", address) + f"metrics: {address}\n")
        problem = f"can't listen on {address}: Address already in use; fine if that is the server that runs here"
        assert warnings(deployment) == [f"listen: {problem}", f"metrics: {problem}"]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, password="right-password") as server:
        yield server


def test_unavailable_redis_is_a_warning_and_a_refusing_one_an_error(deployment: Deployment, redis: RedisServer) -> None:
    deployment.private("password", "right-password\n")
    add(deployment, f"redis: {{url: redis://127.0.0.1:{redis.port}, password_file: password}}")
    assert warnings(deployment) == []
    with redis.client() as client:
        assert client.keys("*") == []
    deployment.private("password", "wrong-password\n")
    assert mistake(deployment) == "redis: Redis refuses the user or the password; check url and password_file"
    redis.kill()
    (found,) = warnings(deployment)
    assert found.startswith(f"redis: redis://127.0.0.1:{redis.port} can't be used now: ")


def test_a_deny_entry_without_a_ca_is_a_warning(deployment: Deployment) -> None:
    (deployment.directory / "deny.yaml").write_text('version: 1\ndeny:\n  - {serial: "1", issuer: CN=nobody}\n')
    path = deployment.directory / "server.yaml"
    path.write_text(path.read_text().replace("dns.pem\n", "dns.pem\n  deny_list: deny.yaml\n"))
    (found,) = warnings(deployment)
    assert found.startswith(f"{deployment.directory}/deny.yaml:3: deny.0.issuer: matches no CA of the bundles")
