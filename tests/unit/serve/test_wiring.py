"""The order in which a server's parts are opened and closed, also where a step of the start fails."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.config.settings import load_settings
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.logs.nonblocking_stream import LineStream
from livekit_auth_server.serve import wiring
from support.handlers import state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from livekit_auth_server.config.settings import Settings

SETTINGS = """
tls: {certificate: server.pem, key: server.key}
identity: {trust_domains: {example.org: ca.pem}}
policy: policy.yaml
projects: {default: {url: "wss://livekit.example.org", keys: {file: keys.yaml}}}
metrics: 127.0.0.1:9464
selfcheck: "off"
drain: 7
"""
STEPS = ("source", "state", "listener", "identity", "telemetry", "stores", "audit", "server", "reloader")
CLOSED = ("source", "listener", "telemetry", "stores", "audit", "server")  # by the order of opening


class Stream(LineStream):
    """Counts how often it is drained, and writes nothing."""

    def __init__(self) -> None:
        super().__init__(2)
        self.drained = 0

    def flush(self) -> None:
        """Has nothing to hand on."""

    async def drain(self, _: float) -> None:
        self.drained += 1


@dataclass
class Parts:
    """Fakes of everything that is opened. The step `fails` raises `fault` instead."""

    fails: str = ""
    fault: BaseException = field(default_factory=lambda: ConfigError("x", "no"))
    open: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    drained: list[tuple[float, list[str]]] = field(default_factory=list)
    stream: Stream = field(default_factory=Stream)
    stopping: asyncio.Event | None = None

    def step(self, name: str) -> None:
        if name == self.fails:
            raise self.fault
        self.open.append(name)

    def close(self, name: str) -> None:
        if name in self.open:
            self.open.remove(name)
            self.closed.append(name)

    @contextlib.contextmanager
    def source(self, _: object) -> Iterator[None]:
        self.step("source")
        try:
            yield None
        finally:
            self.close("source")

    def plain(self, name: str, result: object) -> Callable[..., Any]:
        """A step that opens nothing."""

        def act(*_: object, **__: object) -> object:
            if name == self.fails:
                raise self.fault
            return result

        return act

    def part(self, name: str) -> Part:
        self.step(name)
        return Part(self, name)

    def on_signals(self, _: object, stopping: asyncio.Event) -> None:
        self.stopping = stopping

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def opened(name: str) -> Part:
            await asyncio.sleep(0)
            return self.part(name)

        replacements: dict[str, object] = {
            "return_large_blocks": lambda: None,
            "opened": self.source,
            "fingerprints": lambda _: {},
            "load_state": self.plain("state", state_of()),
            "ProbeListener": lambda _: Part(self, "listener"),
            "load_server_identity": self.plain("identity", None),
            "Endpoint": lambda *_: SimpleNamespace(credentials=lambda: None),
            "open_telemetry": lambda *_: self.part("telemetry"),
            "open_stores": lambda *_: opened("stores"),
            "open_trail": lambda *_, **__: opened("audit"),
            "_new_server": lambda *_: Part(self, "server"),
            "_new_reloader": self.plain("reloader", Reloading()),
            "_on_signals": self.on_signals,
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(wiring, name, replacement)


@dataclass
class Part:
    parts: Parts
    name: str
    link: None = None

    async def start(self, *_: object) -> int:
        self.parts.step(self.name)
        return 1

    async def close(self) -> None:
        self.parts.close(self.name)

    async def stop(self, grace: float) -> None:
        if self.name in self.parts.open:
            self.parts.drained.append((grace, self.parts.open.copy()))
        self.parts.close(self.name)

    def ready(self) -> list[str]:
        return []

    problems = ready


class Reloading:
    """A reloader that never has anything to do."""

    def request(self) -> None:
        """Reads nothing."""

    def failing(self) -> list[str]:
        return []

    async def run(self) -> None:
        await asyncio.Event().wait()


class Supervisor:
    """A worker's line whose supervisor goes when `goes` is set."""

    worker = 3
    gone = False

    def __init__(self) -> None:
        self.goes = asyncio.Event()

    async def run(self, *_: object) -> None:
        await self.goes.wait()
        self.gone = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "server.yaml").write_text(SETTINGS)
    return load_settings(tmp_path / "server.yaml")


async def until_serving(parts: Parts, running: asyncio.Task[None]) -> asyncio.Event:
    async with asyncio.timeout(10):
        while parts.stopping is None and not running.done():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
    if parts.stopping is None:
        await running  # raises what ended it
    assert parts.stopping is not None
    return parts.stopping


async def finished(running: Awaitable[None]) -> None:
    async with asyncio.timeout(10):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("fault", [ConfigError("x", "no"), RuntimeError("a bug"), asyncio.CancelledError()])
@pytest.mark.parametrize("step", STEPS)
async def test_failed_start_closes_what_was_opened_last_first(
    step: str, fault: BaseException, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(step, fault)
    parts.put_in(monkeypatch)
    with pytest.raises(type(fault)):
        await finished(wiring.serve(settings, parts.stream))
    before = [name for name in CLOSED if STEPS.index(name) < STEPS.index(step)]
    assert (parts.open, parts.closed) == ([], before[::-1])
    assert parts.stream.drained == 1


async def test_a_port_that_is_taken_is_a_mistake_in_the_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts("server", OSError("can't listen"))
    parts.put_in(monkeypatch)
    with pytest.raises(ConfigError, match=r"^listen: can't listen$"):
        await finished(wiring.serve(settings, parts.stream))
    assert parts.open == []


async def test_a_server_drains_with_everything_open_and_then_closes_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    parts.put_in(monkeypatch)
    with capture_logs() as lines:
        running = asyncio.create_task(wiring.serve(settings, parts.stream))
        (await until_serving(parts, running)).set()
        await finished(running)
    assert parts.drained == [(7, list(CLOSED))]
    assert (parts.open, parts.closed) == ([], list(CLOSED[::-1]))
    assert [line["event"] for line in lines] == ["serving", "draining", "stopped"]
    assert parts.stream.drained == 1


async def test_a_close_that_fails_keeps_no_other_part_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    parts.put_in(monkeypatch)
    plain = parts.close

    def close(name: str) -> None:
        plain(name)
        if name == "audit":
            raise OSError("the disk is gone")

    monkeypatch.setattr(parts, "close", close)
    running = asyncio.create_task(wiring.serve(settings, parts.stream))
    (await until_serving(parts, running)).set()
    with pytest.raises(OSError, match="the disk is gone"):
        await finished(running)
    assert (parts.open, parts.closed) == ([], list(CLOSED[::-1]))


async def test_a_worker_whose_supervisor_is_gone_gives_its_calls_half_a_second(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, supervisor = Parts(), Supervisor()
    parts.put_in(monkeypatch)
    worker: Any = supervisor
    with capture_logs() as lines:
        running = asyncio.create_task(wiring.serve(settings, parts.stream, worker))
        await until_serving(parts, running)
        supervisor.goes.set()
        await finished(running)
    workers = [name for name in CLOSED if name != "listener"]  # its supervisor has the probes
    assert parts.drained == [(0.5, workers)]
    assert parts.closed == workers[::-1]
    assert "supervisor is gone; this worker stops" in [line["event"] for line in lines]
