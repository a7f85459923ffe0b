"""The line between a worker and its supervisor, with a worker that says what it shouldn't and one whose parts fail."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from livekit_auth_server.adapters.control import Control
from livekit_auth_server.adapters.readiness import Condition
from livekit_auth_server.supervisor import worker as module
from livekit_auth_server.supervisor.worker import Orders, Worker

HEARTBEAT = b'{"phase": "serving", "state": {"ready": true, "reasons": [], "warnings": []}}\n'


@dataclass(frozen=True, slots=True)
class Script(Orders):
    """A process that says this on its line and then stays."""

    says: bytes = b""

    def command(self, number: int, descriptor: int) -> list[str]:
        code = f"import os, time\nos.write({descriptor}, {HEARTBEAT + self.says!r})\ntime.sleep(60)  # {number}"
        return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    "says",
    [
        b"5\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"no JSON\n",
        b'{"failed": 1}\n',
        b'{"failed": {}}\n',
        b'{"phase": "serving"}\n',
        b"x" * 4096,
    ],
)
async def test_a_worker_whose_line_makes_no_sense_is_ended_so_that_another_takes_its_place(
    says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST", 1024)
    worker = await Worker.spawn(Script(Path(), "", says=says), 0)
    try:
        async with asyncio.timeout(5):
            await worker.ended()
        assert worker.gone
        assert not worker.readiness().ready
    finally:
        await worker.stop(1)


class Line:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_unix_connection(sock=self.ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        self.theirs.close()

    async def heard(self, name: str) -> object:
        async with asyncio.timeout(3):
            while name not in (message := json.loads(await self.reader.readline())):
                pass
            return message[name]


async def test_metrics_and_checks_that_fail_cost_the_worker_neither_its_line_nor_its_orders() -> None:
    """A worker without its line wouldn't go when its supervisor does. One that can't say how it stands is silent."""
    broken = [True]

    def page() -> bytes:
        if broken:
            raise RuntimeError("a collector's fault")
        return b"# page"

    def reasons() -> list[str]:
        if broken:
            raise RuntimeError("a check's fault")
        return ["disk"]

    reloads: list[int] = []
    async with Line() as line:
        control, condition = Control(line.theirs.fileno(), 0), Condition("serving", problems=[reasons])
        running = asyncio.create_task(control.run(condition, page, {"reload": lambda: reloads.append(1)}))
        line.writer.write(b"metrics\nreload\n")
        async with asyncio.timeout(3):
            while not reloads:  # noqa: ASYNC110 - a test
                await asyncio.sleep(0.01)
        broken.clear()
        line.writer.write(b"metrics\n")
        assert await line.heard("metrics") == "# page"
        assert await line.heard("state") == {"ready": False, "reasons": ["disk"], "warnings": []}
        line.theirs.close()
        line.writer.close()
        await asyncio.wait_for(running, 3)
        assert control.gone
