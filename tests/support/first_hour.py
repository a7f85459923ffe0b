"""A deployment that `livekit-auth-server dev` wrote, served by a process of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60  # seconds


@dataclass(frozen=True)
class Served:
    """The folder, the port and the log."""

    directory: Path
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[Served]:
        """Serves a folder until the block ends; its settings name port 0."""
        log = directory.parent / "server.log"
        serve = ["-m", "livekit_auth_server.cli", "serve", "--config", str(directory / "server.yaml"), "--json"]
        with log.open("wb") as stream, subprocess.Popen([sys.executable, *serve], stderr=stream) as process:
            try:
                served = cls(directory, process, log)
                served.wait_for("serving")
                yield served
            finally:
                process.terminate()

    @property
    def port(self) -> int:
        return int(next(line for line in self.lines() if line["event"] == "serving")["port"])

    def lines(self) -> list[dict[str, Any]]:
        whole = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in whole]

    def log_has(self, event: str, decision_id: str) -> bool:
        return any((line["event"], line.get("decision_id")) == (event, decision_id) for line in self.lines())

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(line["event"] == event for line in self.lines()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def environment(self, caller: str) -> dict[str, str]:
        """What a client's environment says to call as one of the deployment's callers."""
        return {
            "LIVEKIT_AUTH_ADDRESS": f"127.0.0.1:{self.port}",
            "LIVEKIT_AUTH_CA": str(self.directory / "ca.pem"),
            "LIVEKIT_AUTH_CERT": str(self.directory / f"{caller}.pem"),
            "LIVEKIT_AUTH_KEY": str(self.directory / f"{caller}.key"),
        }

    def webhook(self, event: dict[str, object]) -> tuple[bytes, str]:
        """A body and its Authorization header, signed as LiveKit does."""
        key_id, _, secret = (self.directory / "keys.yaml").read_text().strip().partition(": ")
        body = json.dumps(event).encode()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        claims = {"iss": key_id, "exp": int(time.time()) + 300, "sha256": digest}
        return body, jwt.encode(claims, secret, "HS256")
