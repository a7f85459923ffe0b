"""A mistake in a file is one readable message with the place and what to do, exit code 2 and no traceback."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.cli import main
from support.deployment import SECRETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.deployment import Deployment


def serve(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "livekit_auth_server.cli",
        "serve",
        "--config",
        deployment.directory / "server.yaml",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def edit(name: str, old: str, new: str) -> Callable[[Deployment], None]:
    def change(deployment: Deployment) -> None:
        path = deployment.directory / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def keys(content: str) -> Callable[[Deployment], None]:
    return lambda deployment: deployment.private("beta.yaml", content) and None


def world_readable(deployment: Deployment) -> None:
    (deployment.directory / "beta.yaml").chmod(0o644)


def world_readable_tls_key(deployment: Deployment) -> None:
    (deployment.directory / "server.key").chmod(0o644)


def rsa_server_key(deployment: Deployment) -> None:
    deployment.server_ca.issue(dns=["localhost"], rsa_key=True).write(deployment.directory, "server")


def leaf_in_a_bundle(deployment: Deployment) -> None:
    (deployment.directory / "example.pem").write_bytes(
        deployment.example_ca.issue(uris=["spiffe://example.org/x"]).leaf_pem
    )


def remove(name: str) -> Callable[[Deployment], None]:
    return lambda deployment: (deployment.directory / name).unlink()


MISTAKES = {
    "no settings file": (remove("server.yaml"), "server.yaml: there is no such file"),
    "no policy file": (remove("policy.yaml"), "policy.yaml: there is no such file"),
    "no bundle": (remove("example.pem"), "example.pem: there is no such file"),
    "unknown setting": (
        edit("server.yaml", "reflection:", "reflexion:"),
        "server.yaml:10: reflexion: there is no such",
    ),
    "duplicate setting": (edit("server.yaml", "reflection:", "listen:"), "server.yaml:10: a key stands twice"),
    "bad address": (edit("server.yaml", "listen: 127.0.0.1:0", "listen: nowhere"), "server.yaml:1: listen: should be"),
    "not YAML": (edit("server.yaml", "listen: ", "listen: ["), "isn't valid YAML"),
    "short secret": (keys("APIbeta: too-short-MARKER\n"), 'beta.yaml:1: the secret of key "APIbeta" is under 32 bytes'),
    "key id twice": (keys(f"APIalpha: {SECRETS['APIbeta']}\n"), "key ids are unique"),
    "duplicate key": (keys(f"APIbeta: {SECRETS['APIbeta']}\n" * 2), "beta.yaml:2: a key stands twice"),
    "broken key file": (keys(f"APIbeta: *{SECRETS['APIbeta']}\n"), "beta.yaml:1: isn't valid YAML"),
    "readable keys": (world_readable, "beta.yaml: can be read by others; run: chmod o="),
    "readable TLS key": (world_readable_tls_key, "server.key: can be read by others; run: chmod o="),
    "RSA server key": (rsa_server_key, "isn't ECDSA"),
    "leaf as a CA": (leaf_in_a_bundle, "isn't a CA's"),
    "unscoped power": (
        edit("policy.yaml", "rooms: any\n        identities: any\n        ttl", "identities: any\n        ttl"),
        "policy.yaml:20: callers.1.allow.0.powers: LiveKit doesn't scope agent, room_list, sip to a room",
    ),
    "unknown policy field": (
        edit("policy.yaml", "identities: [{prefix: user-}]", "identity: [{prefix: user-}]"),
        "policy.yaml:13: callers.0.allow.0.identity: there is no such field",
    ),
    "duplicate policy key": (edit("policy.yaml", "worker:", "guest:"), "policy.yaml:4: a key stands twice"),
    "unknown role": (
        edit("policy.yaml", "roles: [guest]\n        rooms", "roles: [gust]\n        rooms"),
        'no role "gust"',
    ),
    "unknown project": (edit("policy.yaml", "projects: [alpha]", "projects: [alfa]"), 'no project "alfa"'),
    "two callers": (
        edit("policy.yaml", "spiffe://example.org/hooks2", "spiffe://example.org/hooks"),
        "spiffe://example.org/hooks stands twice",
    ),
    "bad caller id": (edit("policy.yaml", "spiffe://other.org/web", "spiffe://other.org/"), "not a SPIFFE id"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    deployment: Deployment, mistake: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = MISTAKES[mistake]
    change(deployment)
    settings = str(deployment.directory / "server.yaml")
    monkeypatch.setattr(sys, "argv", ["livekit-auth-server", "serve", "--config", settings])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = "".join(capfd.readouterr())
    assert ended.value.code == 2
    assert expected in shown
    assert shown.startswith("livekit-auth-server: ")
    assert len(shown.strip().splitlines()) == 1
    assert "MARKER" not in shown


def test_a_mistake_ends_the_process_with_2_and_no_traceback(deployment: Deployment) -> None:
    world_readable(deployment)
    done = serve(deployment)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_a_second_server_on_the_port_fails_loudly(deployment: Deployment) -> None:
    deployment.start()
    edit("server.yaml", "listen: 127.0.0.1:0", f"listen: 127.0.0.1:{deployment.port}")(deployment)
    done = serve(deployment)
    assert done.returncode == 2
    assert "can't listen on" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_environment_overrides_the_file(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_AUTH_SERVER_LOG__LEVEL", "loud")
    done = serve(deployment)
    assert done.returncode == 2
    assert "LIVEKIT_AUTH_SERVER_LOG__LEVEL" in done.stderr


def test_misuse_of_the_command_line_exits_with_2(tmp_path: Path) -> None:
    for arguments in (["serve"], ["no-such-command"], ["dev", "--dir", tmp_path.parent], ["policy", "check", "/none"]):
        command = [sys.executable, "-m", "livekit_auth_server.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
