"""Asking a server's plain HTTP listener."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Probes:
    """The listener on this port of the loopback address."""

    port: int

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def up(self) -> bool:
        """Whether it is ready; one that doesn't listen yet isn't."""
        try:
            return self.ready()
        except urllib.error.URLError:
            return False

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return state

    def metrics(self) -> str:
        status, body = self.get("/metrics")
        assert status == 200
        return body


def within(seconds: float, condition: Callable[[], object], what: str = "it") -> float:
    """Waits until it is so; returns how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} didn't come about within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began
