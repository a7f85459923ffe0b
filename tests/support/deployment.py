"""A real server process with a deployment of its own: two trust domains, DNS names, two projects."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from livekit_auth import AuthClient
from livekit_auth.v1 import auth_service_pb2_grpc
from support.pki import SERVER, Authority, Credential

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVICE = "livekit_auth.v1.AuthService"
START_TIMEOUT = 90

# Long enough for HS512 as well, and easy to find in a log.
SECRETS = {
    name: f"{name}-secret-MARKER-" + "0123456789abcdef" * 3 for name in ("APIalpha", "APIolder", "APIgone", "APIbeta")
}

KEYS_ALPHA = f"""\
keys:
  - {{id: APIalpha, secret: {SECRETS["APIalpha"]}}}
  - {{id: APIolder, secret: {SECRETS["APIolder"]}, state: verify-only}}
  - {{id: APIgone, secret: {SECRETS["APIgone"]}, state: revoked}}
"""

POLICY = """\
version: 1
roles:
  guest: {video: {room_join: true}}
  worker: {video: {agent: true}}
  phone: {sip: {call: true}}
callers:
  - id: spiffe://example.org/web
    allow:
      - name: consult
        projects: [alpha]
        roles: [guest]
        rooms: [{prefix: consult-}]
        identities: [{prefix: user-}]
  - id: spiffe://example.org/admin
    default_project: alpha
    allow:
      - name: everything
        projects: any
        roles: [guest, worker, phone]
        grants: any
        powers: [agent, sip, room_admin, room_list, hidden, kind, destination_room, room_config, room_config_egress,
                 room_config_agents, room_preset, long_ttl]
        rooms: any
        identities: any
        ttl: {default: 10m, max: 48h}
    verify: {webhooks: any, tokens: any}
  - id: spiffe://example.org/hooks
    verify: {webhooks: [alpha], tokens: [alpha]}
  - id: spiffe://example.org/hooks2
    verify: {webhooks: [alpha]}
  - id: spiffe://other.org/web
    allow:
      - {name: beta, projects: [beta], roles: [guest], rooms: any, identities: any}
  - id: dns:legacy.example.org
    allow:
      - {name: dns, projects: [beta], roles: [guest], rooms: any, identities: any}
"""


@dataclass
class Deployment:
    """Its folder, its CAs and, once started, its process."""

    directory: Path
    example_ca: Authority = field(default_factory=lambda: Authority.create("example.org CA"))
    other_ca: Authority = field(default_factory=lambda: Authority.create("other.org CA"))
    dns_ca: Authority = field(default_factory=lambda: Authority.create("DNS CA"))
    server_ca: Authority = field(default_factory=lambda: Authority.create("server CA"))
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    selfcheck: str = "off"  # its child takes a second of CPU time, which few tests need
    channels: list[grpc.Channel] = field(default_factory=list)

    def write(self, extra: str = "") -> None:
        """Writes all files; `extra` is more YAML for server.yaml."""
        self.server_ca.issue(dns=["localhost"], usages=[SERVER]).write(self.directory, "server")
        bundles = {"example": self.example_ca, "other": self.other_ca, "dns": self.dns_ca, "server-ca": self.server_ca}
        for name, authority in bundles.items():
            (self.directory / f"{name}.pem").write_bytes(authority.leaf_pem)
        self.private("alpha.yaml", KEYS_ALPHA)
        self.private("beta.yaml", f"APIbeta: {SECRETS['APIbeta']}\n")
        (self.directory / "policy.yaml").write_text(POLICY)
        (self.directory / "server.yaml").write_text(f"""\
listen: 127.0.0.1:0
tls: {{certificate: server.pem, key: server.key}}
identity:
  trust_domains: {{example.org: example.pem, other.org: other.pem}}
  dns_bundle: dns.pem
policy: policy.yaml
projects:
  alpha: {{url: "wss://alpha.example.org", keys: {{file: alpha.yaml}}}}
  beta: {{url: "wss://beta.example.org", keys: {{file: beta.yaml}}}}
reflection: true
selfcheck: {self.selfcheck}
log: {{format: json, level: debug}}
{extra}""")

    def private(self, name: str, content: str) -> Path:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    @property
    def log(self) -> str:
        """All that the server has written to its log."""
        return (self.directory / "server.log").read_text()

    def audit(self, decision_id: str) -> dict[str, object]:
        """The audit record of a decision."""
        lines = (json.loads(line) for line in self.log.splitlines() if '"event":"audit"' in line)
        return next(line for line in lines if line.get("decision_id") == decision_id)

    def command(self, name: str) -> list[str]:
        """The command line of a program's command that takes the settings: "serve", "check"."""
        settings = self.directory / "server.yaml"
        return [sys.executable, "-m", "livekit_auth_server.cli", name, "--config", str(settings)]

    def start(self, code: Path | None = None, under: Sequence[str] = ()) -> None:
        """Starts the server, and with several workers waits for all.

        `code` is a folder with another version of it, `under` what launches it.
        """
        command = [*under, *self.command("serve")]
        with (self.directory / "server.log").open("wb") as stream:
            self.process = subprocess.Popen(command, stderr=stream, env=environment(code))
        several = re.search(r"^workers: (?!1$)", (self.directory / "server.yaml").read_text(), re.MULTILINE)
        event = '"event":"supervising"' if several else '"event":"serving"'
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            serving = [line for line in self.log.splitlines() if event in line]
            if serving:
                self.port = json.loads(serving[0])["port"]
                return
            time.sleep(0.02)
        raise AssertionError(f"the server didn't start: {self.log[-2000:]}")

    @property
    def started(self) -> subprocess.Popen[bytes]:
        """The process, once it was started."""
        assert self.process is not None
        return self.process

    def stop(self) -> int:
        """Ends the process with SIGTERM and returns its exit code."""
        for channel in self.channels:
            channel.close()
        self.channels.clear()
        if self.started.poll() is None:
            self.started.send_signal(signal.SIGTERM)
        try:
            return self.started.wait(20)
        except subprocess.TimeoutExpired:
            self.started.kill()
            return self.started.wait()

    def channel(self, credential: Credential | None, service_config: str = "") -> grpc.Channel:
        """A channel with this client certificate, or without one. Without a service config nothing is retried."""
        key, chain = (credential.key_pem, credential.cert_pem) if credential else (None, None)
        credentials = grpc.ssl_channel_credentials(self.server_ca.leaf_pem, key, chain)
        options: list[tuple[str, str | int]] = [("grpc.max_receive_message_length", 8 * 1024 * 1024)]
        options.append(("grpc.service_config", service_config) if service_config else ("grpc.enable_retries", 0))
        channel = grpc.secure_channel(f"localhost:{self.port}", credentials, options)
        self.channels.append(channel)
        return channel

    def stub(self, credential: Credential | None) -> auth_service_pb2_grpc.AuthServiceStub:
        return auth_service_pb2_grpc.AuthServiceStub(self.channel(credential))

    def raw(self, credential: Credential | None, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """A method of the service that sends a request's bytes as they are."""
        return self.channel(credential).unary_unary(f"/{SERVICE}/{method}")

    def raw_stream(self, credential: Credential | None, method: str) -> grpc.StreamUnaryMultiCallable[bytes, bytes]:
        """The same with any number of requests in one call."""
        return self.channel(credential).stream_unary(f"/{SERVICE}/{method}")

    def caller(self, uri: str) -> auth_service_pb2_grpc.AuthServiceStub:
        """A stub for a proper certificate of example.org's CA with this SPIFFE id."""
        return self.stub(self.example_ca.issue(uris=[uri]))

    def client(self, uri: str, folder: Path, *, port: int | None = None, timeout: float = 5.0) -> AuthClient:
        """The Python client with such a certificate, whose files are in `folder`."""
        cert, key = self.example_ca.issue(uris=[uri]).write(folder, "client")
        return AuthClient(
            f"localhost:{port or self.port}",
            ca=self.directory / "server-ca.pem",
            cert=cert,
            key=key,
            timeout=timeout,
        )


def environment(code: Path | None = None) -> dict[str, str]:
    """The environment of a child: warnings are errors, and `code` comes before what is installed."""
    return {**os.environ, "PYTHONWARNINGS": "error", **({"PYTHONPATH": str(code)} if code else {})}
