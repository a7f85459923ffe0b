"""A person who follows only the documents revokes a workload: their commands and files, as they stand, on a server."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from livekit_auth.v1 import auth_service_pb2
from support.deployment import POLICY, Deployment, environment
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).resolve().parents[2] / "docs"
CALLER = "spiffe://example.org/ns/web/sa/consult-api"  # as the documents name it
OTHER = "spiffe://example.org/hooks"
WHO = auth_service_pb2.GetCallerRequest()
ASK = auth_service_pb2.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", project="alpha")
WITHIN = 3.0  # seconds; the documents say one, the machine may be busy


def section(page: str, heading: str) -> str:
    return (DOCS / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def block(text: str, language: str, holding: str) -> str:
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if holding in block]
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Deployment]:
    """A server whose folder stands for /etc/livekit-auth, with the caller that the documents revoke."""
    deployment = Deployment(tmp_path)
    deployment.write("audit: {path: audit}\n")
    settings = tmp_path / "server.yaml"
    settings.write_text(settings.read_text().replace("dns.pem\n", "dns.pem\n  deny_list: deny.yaml\n"))
    (tmp_path / "policy.yaml").write_text(POLICY.replace("spiffe://example.org/web", CALLER))
    (tmp_path / "deny.yaml").write_text("version: 1\ndeny: []\n")
    deployment.start()
    yield deployment
    deployment.stop()


def shell(server: Deployment, commands: str) -> str:
    """Runs what a document says, with the folders that it names being the server's."""
    here = commands.replace("/etc/livekit-auth", str(server.directory))
    here = here.replace("/var/lib/livekit-auth/audit", str(server.directory / "audit"))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", here], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused_soon(call: Callable[[], object]) -> str:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        try:
            call()
        except grpc.RpcError:
            return refusal(call).reason
        time.sleep(0.05)
    raise AssertionError("the caller is still served")


def test_the_commands_for_a_leaked_key_stop_its_caller_and_show_what_it_got(server: Deployment) -> None:
    text = section("incidents.md", "A caller's key leaked")
    caller, other = server.caller(CALLER), server.caller(OTHER)
    decision = caller.IssueToken(ASK).decision_id
    shell(server, block(text, "sh", "deny.new.yaml"))
    assert refused_soon(lambda: caller.IssueToken(ASK)) == "CERTIFICATE_REVOKED"
    assert other.GetCaller(WHO).listed, "nobody else is stopped"
    assert '"event":"reloaded"' in server.log
    assert '"kind":"revocations"' in server.log
    assert decision in shell(server, block(text, "sh", "audit query"))
    assert sorted(path.name for path in server.directory.glob("*.new.*")) == []


def test_the_deny_list_of_the_operations_page_stops_the_workload_that_it_names(server: Deployment) -> None:
    written = block(section("operations.md", "Revoke a workload or a certificate"), "yaml", "deny:")
    caller, other = server.caller(CALLER), server.caller(OTHER)
    assert caller.GetCaller(WHO).listed
    swap = "cd /etc/livekit-auth\nmv deny.new.yaml deny.yaml"
    shell(server, f"cat > /etc/livekit-auth/deny.new.yaml <<'EOF'\n{written}EOF\n{swap}")
    assert refused_soon(lambda: caller.GetCaller(WHO)) == "CERTIFICATE_REVOKED"
    assert other.GetCaller(WHO).listed


def test_a_mistake_in_the_list_is_found_before_it_is_swapped_in(server: Deployment) -> None:
    """What the commands' `check` is for: they end there, and the list in force stays."""
    commands = block(section("incidents.md", "A caller's key leaked"), "sh", "deny.new.yaml")
    mistaken = commands.replace("id: spiffe://", "id: spiffe:/").replace("/etc/livekit-auth", str(server.directory))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", mistaken], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2
    assert "deny.new.yaml" in done.stderr
    assert (server.directory / "deny.yaml").read_text() == "version: 1\ndeny: []\n"
