"""Two workers under a supervisor: real processes."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from livekit_auth import AuthClient
from support.deployment import Deployment
from support.ports import free_port
from support.probes import Probes, within

if TYPE_CHECKING:
    from pathlib import Path

WEB = "spiffe://example.org/web"


@dataclass
class Fleet:
    """A deployment with two workers and what is asked of it."""

    deployment: Deployment
    probes: Probes

    @classmethod
    def create(cls, directory: Path, extra: str = "") -> Fleet:
        fleet = cls(Deployment(directory), Probes(free_port()))
        fleet.deployment.write(f"workers: 2\nmetrics: 127.0.0.1:{fleet.probes.port}\n{extra}")
        fleet.deployment.example_ca.issue(uris=[WEB]).write(directory, "web")
        return fleet

    def start(self, code: Path | None = None) -> Fleet:
        self.deployment.start(code)
        within(60, self.probes.ready, "readiness")
        return self

    @property
    def supervisor(self) -> psutil.Process:
        assert self.deployment.process is not None
        return psutil.Process(self.deployment.process.pid)

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.supervisor.children() if child.status() != psutil.STATUS_ZOMBIE]

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.deployment.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def client(self) -> AuthClient:
        folder = self.deployment.directory
        return AuthClient(
            f"localhost:{self.deployment.port}",
            ca=folder / "server-ca.pem",
            cert=folder / "web.pem",
            key=folder / "web.key",
        )

    def counted(self) -> set[str]:
        """The workers that have answered calls, by number."""
        return set(re.findall(r'livekit_auth_calls_total\{.*worker="(\d+)"', self.probes.metrics()))

    def roll(self) -> None:
        done = len(self.events("rolling restart done"))
        self.supervisor.send_signal(signal.SIGUSR2)
        within(60, lambda: len(self.events("rolling restart done")) > done, "the rolling restart")
