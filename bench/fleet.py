"""Measures a fleet of agent workers that lose LiveKit at once: how long tokens take, and the calls per worker.

`python -m bench.fleet [--workers 200]`. Each worker has its own TLS connection to one auth server on this machine
and uses the connection code of livekit_auth.agents. Loopback only; takes under a minute. It reports the times, and
fails if the server doesn't issue exactly one token per worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import devfolder
from bench.processes import free_address, serving
from bench.run import server_command
from livekit_auth import AuthClient, TokenRequest
from livekit_auth._workers.tokens import SPREAD_SECONDS, WorkerTokens

if TYPE_CHECKING:
    from livekit_auth import IssuedToken

OUTAGE_SECONDS = 20.0
REPEATED = 1.05  # tokens per worker after an outage: a call can reach its deadline while its token is made


@dataclass
class Worker:
    """One worker: times the requests of WorkerTokens."""

    client: AuthClient
    spread: bool = False
    seconds: list[float] = field(default_factory=list)
    calls: int = 0

    def tokens(self) -> WorkerTokens:
        """The tokens of a worker, without the pause before the request; `connect` adds it if `spread` is set."""
        return WorkerTokens(self, TokenRequest(role="agent-worker"))

    async def connect(self) -> None:
        """Gets a token for a connection."""
        if self.spread:
            await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))  # noqa: S311 - the delay needs no secrecy
        await self.tokens().fresh()

    async def issue(self, request: TokenRequest) -> IssuedToken:
        """Issues a token with AuthClient. Records the call and its duration."""
        started = time.perf_counter()
        self.calls += 1
        token = await self.client.issue(request)
        self.seconds.append(time.perf_counter() - started)
        return token


def main() -> int:
    """Measures and prints; returns the exit code."""
    logging.getLogger("livekit_auth").setLevel(logging.ERROR)  # hide hundreds of warnings during the outage
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=200)
    with tempfile.TemporaryDirectory(prefix="livekit-auth-fleet-") as folder:
        return asyncio.run(_measure(Path(folder), parser.parse_args().workers))


async def _measure(folder: Path, workers: int) -> int:
    address = free_address()
    devfolder.make(folder, address)
    command, log = server_command(folder), folder / "server.log"
    async with AsyncExitStack() as stack:
        with serving(None, command, address, log):
            fleet = [Worker(await stack.enter_async_context(_client(folder, address))) for _ in range(workers)]
            print(f"{workers} workers, one server")
            good = await _round("first connections, at once", fleet, folder, spread=False)
            good &= await _round("connected, at once", fleet, folder, spread=False)
            good &= await _round("connected, spread as workers do", fleet, folder, spread=True)
        before = _issued(folder)
        for worker in fleet:
            worker.seconds.clear()
            worker.calls = 0
        waiting = [asyncio.create_task(worker.connect()) for worker in fleet]
        await asyncio.sleep(OUTAGE_SECONDS)
        with serving(None, command, address, log):
            started = time.perf_counter()
            await asyncio.gather(*waiting)
            recovered = time.perf_counter() - started
        tried = sum(worker.calls for worker in fleet) / workers
        issued = _issued(folder) - before
        good &= workers <= issued <= workers * REPEATED
        print(f"after {OUTAGE_SECONDS:.0f} s without the server: all have a token {recovered:.1f} s after its return,")
        print(f"  {issued} tokens issued for {workers} workers, {tried:.1f} calls per worker")
    return 0 if good else 1


async def _round(name: str, fleet: list[Worker], folder: Path, *, spread: bool) -> bool:
    """Connects every worker once. Returns whether the server issued exactly one token per worker."""
    before = _issued(folder)
    for worker in fleet:
        worker.seconds.clear()
        worker.spread = spread
    await asyncio.gather(*(worker.connect() for worker in fleet))
    seconds = sorted(worker.seconds[-1] for worker in fleet)
    slow = statistics.quantiles(seconds, n=100)[98]
    issued = _issued(folder) - before
    print(f"{name}: p50 {statistics.median(seconds) * 1000:.0f} ms, p99 {slow * 1000:.0f} ms, {issued} tokens issued")
    return issued == len(fleet)


def _client(folder: Path, address: str) -> AuthClient:
    return AuthClient(address, ca=folder / "ca.pem", cert=folder / "agents.pem", key=folder / "agents.key")


def _issued(folder: Path) -> int:
    """The number of permits in the audit trail."""
    lines = [line for part in (folder / "audit").glob("*.jsonl") for line in part.read_text().splitlines()]
    return sum(1 for line in lines if json.loads(line).get("permitted"))


if __name__ == "__main__":
    sys.exit(main())
