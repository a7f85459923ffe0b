"""A mistake in a file is one readable message with the place and what to do, exit code 2 and no traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.cli.app import main
from support.command_line import run
from support.deployment import SECRETS
from support.fake_agent import FakeAgent, response
from support.pki import Authority
from support.probes import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.deployment import Deployment


def serve(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    command = deployment.command("serve")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def edit(name: str, old: str, new: str) -> Callable[[Deployment], None]:
    def change(deployment: Deployment) -> None:
        path = deployment.directory / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def keys(content: str) -> Callable[[Deployment], None]:
    def change(deployment: Deployment) -> None:
        deployment.private("beta.yaml", content)

    return change


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


def denying(entries: str) -> Callable[[Deployment], None]:
    def change(deployment: Deployment) -> None:
        edit("server.yaml", "dns.pem\n", "dns.pem\n  deny_list: deny.yaml\n")(deployment)
        (deployment.directory / "deny.yaml").write_text(f"version: 1\n{entries}\n")

    return change


def strangers_crl(deployment: Deployment) -> None:
    edit("server.yaml", "dns.pem\n", "dns.pem\n  crls: [crl.pem]\n")(deployment)
    (deployment.directory / "crl.pem").write_bytes(Authority.create("stranger").crl())


MISTAKES = {
    "no settings file": (remove("server.yaml"), "server.yaml: there is no such file"),
    "no policy file": (remove("policy.yaml"), "policy.yaml: there is no such file"),
    "no bundle": (remove("example.pem"), "example.pem: there is no such file"),
    "unknown setting": (
        edit("server.yaml", "reflection:", "reflexion:"),
        "server.yaml:10: reflexion: there is no such",
    ),
    "duplicate setting": (
        edit("server.yaml", "reflection:", "listen:"),
        "server.yaml:10: duplicate key, in line 1 too",
    ),
    "bad address": (edit("server.yaml", "listen: 127.0.0.1:0", "listen: nowhere"), "server.yaml:1: listen: should be"),
    "not YAML": (edit("server.yaml", "listen: ", "listen: ["), "isn't valid YAML"),
    "short secret": (keys("APIbeta: too-short-MARKER\n"), 'beta.yaml:1: the secret of key "APIbeta" is under 32 bytes'),
    "key id twice": (keys(f"APIalpha: {SECRETS['APIbeta']}\n"), 'beta.yaml:1) and in project "alpha" ('),
    "duplicate key": (keys(f"APIbeta: {SECRETS['APIbeta']}\n" * 2), "beta.yaml:2: duplicate key, in line 1 too"),
    "broken key file": (keys(f"APIbeta: *{SECRETS['APIbeta']}\n"), "beta.yaml:1: isn't valid YAML"),
    "readable keys": (world_readable, "beta.yaml: can be read by others; run: chmod o="),
    "readable TLS key": (world_readable_tls_key, "server.key: can be read by others; run: chmod o="),
    "RSA server key": (rsa_server_key, "isn't ECDSA"),
    "leaf as a CA": (leaf_in_a_bundle, "isn't a CA's"),
    "unscoped power": (
        edit("policy.yaml", "rooms: any\n        identities: any\n        ttl", "identities: any\n        ttl"),
        "policy.yaml:21: callers.1.allow.0.powers: LiveKit doesn't scope agent, room_list, sip to a room",
    ),
    "unknown policy field": (
        edit("policy.yaml", "identities: [{prefix: user-}]", "identity: [{prefix: user-}]"),
        "policy.yaml:13: callers.0.allow.0.identity: there is no such field",
    ),
    "duplicate policy key": (edit("policy.yaml", "worker:", "guest:"), "policy.yaml:4: duplicate key, in line 3 too"),
    "unknown role": (
        edit("policy.yaml", "roles: [guest]\n        rooms", "roles: [gust]\n        rooms"),
        'no role "gust"',
    ),
    "unknown project": (edit("policy.yaml", "projects: [alpha]", "projects: [alfa]"), 'no project "alfa"'),
    "two callers": (
        edit("policy.yaml", "spiffe://example.org/hooks2", "spiffe://example.org/hooks"),
        "duplicate caller spiffe://example.org/hooks",
    ),
    "bad deny-list": (
        denying("deny: [{serial: 4711, issuer: CN=x}]"),
        "deny.yaml:2: deny.0.serial: should be text; put it in quotes",
    ),
    "no CRL": (edit("server.yaml", "dns.pem\n", "dns.pem\n  crls: [crl.pem]\n"), "crl.pem: there is no such file"),
    "a stranger's CRL": (strangers_crl, "no bundle holds such a CA"),
    "bad caller id": (edit("policy.yaml", "spiffe://other.org/web", "spiffe://other.org/"), "not a SPIFFE id"),
}


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    deployment: Deployment,
    mistake: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change, expected = MISTAKES[mistake]
    change(deployment)
    settings = str(deployment.directory / "server.yaml")
    monkeypatch.setattr(sys, "argv", ["livekit-auth-server", command, "--config", settings])
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


@pytest.mark.slow  # in the fast suite: unit/serve/test_wiring.py
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


def checked(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """What `check` says of a deployment that it finds fine."""
    assert run(monkeypatch, "check", "--config", deployment.directory / "server.yaml") == 0
    return capfd.readouterr().out


def test_check_says_what_would_be_served(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    denying("deny: [{id: spiffe://example.org/web}]")(deployment)
    text = checked(deployment, monkeypatch, capfd)
    assert "server.yaml: fine." in text
    assert "6 callers" in text
    assert "project alpha: 2 keys verify\n" in text
    assert "denied: 1 workloads, 0 certificates" in text
    command = [*deployment.command("check"), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    assert found["projects"] == {"alpha": {"sign": 1, "verify": 2}, "beta": {"sign": 1, "verify": 1}}
    assert found["authorities"] == {"example.org": 1, "other.org": 1, "DNS names": 1}
    assert not any(secret in text + str(found) for secret in SECRETS.values())


def test_check_warns_of_a_project_that_cant_sign(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = deployment.directory / "alpha.yaml"
    path.write_text(
        path.read_text().replace(f"{SECRETS['APIalpha']}}}", f"{SECRETS['APIalpha']}, state: verify-only}}")
    )
    assert "project alpha: 2 keys verify; none can sign now" in checked(deployment, monkeypatch, capfd)


@pytest.mark.parametrize(
    "arguments", [["serve"], ["no-such-command"], ["dev", "--dir", "/"], ["policy", "check", "/none"]]
)
def test_misuse_of_the_command_line_exits_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_signals_that_come_while_it_loads_dont_end_it(deployment: Deployment) -> None:
    """It waits for the Workload API, so that it loads for as long as the test wants."""
    agent = FakeAgent(deployment.directory)
    agent.start()
    edit("server.yaml", "example.org: example.pem, ", "")(deployment)
    edit("server.yaml", "dns.pem\n", "dns.pem\n  workload_api: [example.org]\n")(deployment)
    with (deployment.directory / "server.yaml").open("a") as settings:
        settings.write(f"workload_api: {{socket: '{agent.socket}', patience: 60}}\n")
    command = deployment.command("serve")
    with (deployment.directory / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            within(30, lambda: bool(agent.headers) or process.poll() is not None, "the question to the agent")
            for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
                process.send_signal(number)
            time.sleep(0.2)
            assert process.poll() is None
            own = deployment.example_ca.issue(uris=["spiffe://example.org/livekit-auth"])
            agent.put(response(("spiffe://example.org/livekit-auth", own, deployment.example_ca)))
            within(30, lambda: b'"event":"serving"' in (deployment.directory / "log").read_bytes(), "service")
        finally:
            process.kill()
            agent.stop()
