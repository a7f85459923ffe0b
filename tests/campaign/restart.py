"""Rolling restarts of several workers under steady load from many connections: no call may fail.

    PYTHONPATH=tests CAMPAIGN_SCALE=short python -m campaign.restart

The client is the real one, with its documented retries. No restart may make /readyz say no, and every token must have
its record in a trail that verifies, in whichever worker's file. Beside the load, plain connections are opened and
closed all the time: how many of them are reset shows what a closing listener loses. Ends with one line of figures, and
with 1 when something failed or was wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from livekit_auth import AuthClient, AuthError
from livekit_auth_server.audit.query import Wanted, search
from livekit_auth_server.audit.verify import verify_files
from livekit_auth_server.core.chain import Head
from support.deployment import Deployment
from support.ports import free_port
from support.probes import Probes

if TYPE_CHECKING:
    from collections.abc import Coroutine

CONNECTIONS = 50
WORKERS = {"short": 2, "full": 3}
RESTARTS = {"short": 2, "full": 20}
PAUSE = 0.05  # seconds between the calls of a client
CALLS_A_CONNECTION = 40  # then a client connects anew
KNOCKS = 0.005  # seconds between plain connections
LONGEST = 120.0  # seconds for one rolling restart


@dataclass
class Figures:
    handshakes: int = 0
    knocks: int = 0
    slow: int = 0  # answers of /readyz that a worker was too busy to say how it stands
    lost: int = 0  # plain connections that were refused or reset
    tokens: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


@dataclass
class Campaign:
    server: Deployment
    probes: Probes
    restarts: int
    figures: Figures = field(default_factory=Figures)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def client(self) -> AuthClient:
        folder = self.server.directory
        return AuthClient(
            f"localhost:{self.server.port}",
            ca=folder / "server-ca.pem",
            cert=folder / "web.pem",
            key=folder / "web.key",
        )

    async def caller(self, number: int) -> None:
        """One connection after the other, a call after the other."""
        chance, count = random.Random(number), 0
        while not self.over.is_set():
            async with self.client() as client:
                self.figures.handshakes += 1
                for _ in range(CALLS_A_CONNECTION):
                    if self.over.is_set():
                        return
                    count += 1
                    await self.call(client, f"user-{number}-{count}")
                    await asyncio.sleep(PAUSE * chance.random() * 2)

    async def call(self, client: AuthClient, identity: str) -> None:
        began = time.perf_counter()
        try:
            issued = await client.issue_token(room="consult-1", identity=identity, role="guest")
            self.figures.tokens.append(issued.token)
        except AuthError as error:
            self.figures.failed.append(f"{identity}: {error!r}")
        self.figures.latencies.append(time.perf_counter() - began)

    async def knock(self) -> None:
        """Opens connections that say nothing, and sees whether they are kept until it closes them."""
        while not self.over.is_set():
            self.figures.knocks += 1
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            except OSError:
                self.figures.lost += 1
                continue
            try:  # a server that has the connection waits for a handshake
                async with asyncio.timeout(KNOCKS):
                    await reader.read(1)
                self.figures.lost += 1
            except TimeoutError:
                pass
            except OSError:
                self.figures.lost += 1
            writer.transport.abort()
            await asyncio.sleep(0)

    async def watch(self) -> None:
        """Readiness, as a load balancer would ask for it."""
        while not self.over.is_set():
            state = await asyncio.to_thread(self.probes.state)
            slow = [reason for reason in state["reasons"] if reason.endswith("doesn't answer")]
            self.figures.slow += bool(slow)  # a busy machine's doing, and not a restart's
            if len(state["reasons"]) > len(slow):
                self.figures.wrong.append(f"not ready: {state['reasons']}")
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        callers: list[Coroutine[None, None, None]] = [self.caller(number) for number in range(CONNECTIONS)]
        async with asyncio.TaskGroup() as tasks:
            for one in (*callers, self.knock(), self.watch()):
                tasks.create_task(one)
            await asyncio.sleep(0.5)
            for _ in range(self.restarts):
                await self.restart()
            self.over.set()

    async def restart(self) -> None:
        assert self.server.process is not None
        done, began = self.server.log.count('"event":"rolling restart done"'), time.perf_counter()
        self.server.process.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(LONGEST):
            while self.server.log.count('"event":"rolling restart done"') == done:  # noqa: ASYNC110 - a log tells nobody
                await asyncio.sleep(0.05)
        self.figures.restarts.append(time.perf_counter() - began)

    def check_trail(self) -> int:
        """Holds every token against the files; returns how many chains there are."""
        folder = self.server.directory / "audit"
        lines = [line for line in self.server.log.splitlines() if '"event":"audit head"' in line]
        verdict = verify_files([folder], [Head.parse(json.loads(line)["head"]) for line in lines])
        self.figures.wrong += [f"{one.file}:{one.line}: {one.what}" for one in verdict.problems]
        recorded = {fields.get("token_sha256") for fields in search([folder], Wanted())}
        without = {hashlib.sha256(token.encode()).hexdigest() for token in self.figures.tokens} - recorded
        self.figures.wrong += [f"a token without a record: sha256 {digest}" for digest in without]
        return len(verdict.chains)


def main() -> int:
    scale = "short" if os.environ.get("CAMPAIGN_SCALE") == "short" else "full"
    with tempfile.TemporaryDirectory(prefix="livekit-auth-campaign-") as folder:
        server, probes = Deployment(Path(folder)), Probes(free_port())
        server.write(
            f"workers: {WORKERS[scale]}\nmetrics: 127.0.0.1:{probes.port}\naudit: {{path: audit, required: true}}"
        )
        server.example_ca.issue(uris=["spiffe://example.org/web"]).write(server.directory, "web")
        server.start()
        campaign = Campaign(server, probes, RESTARTS[scale])
        began = time.perf_counter()
        try:
            asyncio.run(campaign.run())
        finally:
            code = server.stop()
        if code != 0:
            campaign.figures.wrong.append(f"the server ended with {code}")
        return report(campaign, WORKERS[scale], time.perf_counter() - began)


def report(campaign: Campaign, workers: int, seconds: float) -> int:
    figures, chains = campaign.figures, campaign.check_trail()
    for line in (*figures.failed[:5], *figures.wrong[:5]):
        sys.stderr.write(f"  {line}\n")
    latency = statistics.quantiles(figures.latencies, n=1000)
    sys.stdout.write(
        f"restart campaign: {len(figures.restarts)} rolling restarts of {workers} workers in {seconds:.0f} s, each "
        f"{statistics.median(figures.restarts):.1f} s; {len(figures.latencies)} calls from {CONNECTIONS} connections, "
        f"{figures.handshakes} handshakes, p50 {latency[499] * 1000:.1f} ms, p99 {latency[989] * 1000:.1f} ms; "
        f"{figures.lost} of {figures.knocks} plain connections lost, {figures.slow} times too busy; "
        f"{len(figures.tokens)} tokens in {chains} chains; "
        f"{len(figures.failed)} failed, {len(figures.wrong)} wrong\n"
    )
    return 1 if figures.failed or figures.wrong or not figures.tokens else 0


if __name__ == "__main__":
    sys.exit(main())
