"""The order in which a supervisor closes what it opened, also where a step of the start fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth_server.config.settings import load_settings
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.logs.nonblocking_stream import LineStream
from livekit_auth_server.supervisor import run

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from livekit_auth_server.config.settings import Settings

SETTINGS = """
tls: {certificate: server.pem, key: server.key}
identity: {trust_domains: {example.org: ca.pem}}
policy: policy.yaml
projects: {default: {url: "wss://livekit.example.org", keys: {file: keys.yaml}}}
metrics: 127.0.0.1:9464
"""


@dataclass
class Parts:
    """Fakes of the port, the listener and the pool. The step `fails` raises."""

    fails: str = ""
    closed: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, name: str) -> None:
        if name == self.fails:
            raise ConfigError(name, "no")

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        replacements: dict[str, object] = {
            "hold": lambda _: Port(self),
            "_listener": lambda *_: Listener(self),
            "Pool": lambda *_, **__: Workers(self),
            "_signals": lambda _: self.stopping,
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(run, name, replacement)


@dataclass
class Port:
    parts: Parts
    address: str = "127.0.0.1:1"

    def close(self) -> None:
        self.parts.closed.append("port")


@dataclass
class Listener:
    parts: Parts

    async def start(self, _: str) -> None:
        self.parts.step("listener")

    async def close(self) -> None:
        self.parts.closed.append("listener")


@dataclass
class Workers:
    parts: Parts
    live: tuple[Any, ...] = ()
    restarts: int = 0
    hung: int = 0

    async def start(self) -> None:
        self.parts.step("pool")

    async def run(self) -> None:
        self.parts.stopping.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.parts.closed.append("pool")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "server.yaml").write_text(SETTINGS)
    return load_settings(tmp_path / "server.yaml")


async def supervised(settings: Settings) -> None:
    running: Awaitable[None] = run.supervise(settings, 2, Path("server.yaml"), LineStream(2), as_json=False)
    async with asyncio.timeout(10):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("step", "closed"), [("listener", ["listener", "port"]), ("pool", ["pool", "listener", "port"])]
)
async def test_failed_start_closes_what_was_opened_last_first(
    step: str, closed: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(step)
    parts.put_in(monkeypatch)
    with pytest.raises(ConfigError, match=f"^{step}: no$"):
        await supervised(settings)
    assert parts.closed == closed


async def test_a_supervisor_that_is_told_to_stop_drains_the_workers_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    parts.put_in(monkeypatch)
    await supervised(settings)
    assert parts.closed == ["pool", "listener", "port"]
