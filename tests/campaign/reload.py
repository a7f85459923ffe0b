"""Steady load from many connections while policies, keys and certificates change under the server.

    PYTHONPATH=tests CAMPAIGN_SCALE=short python -m campaign.reload

No call may fail and no decision may be wrong: a permitted one must fit the revision that it names, a token must be
signed by a key that may sign, and whatever begins and ends while nothing is changing must fit what is in force then.
Ends with one line of figures, and with 1 when something failed or was wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import jwt

from livekit_auth import AuthClient, AuthError, Denied, VerificationFailed
from livekit_auth_server.keys import lifecycle
from support.deployment import POLICY, SECRETS, Deployment
from support.pki import SERVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from livekit_auth import IssuedToken

CONNECTIONS = 50
PAUSE = 0.02  # seconds between the calls of a client
CALLS_A_CONNECTION = 60  # then a client connects anew
FIRST_KEY = "APIalpha"
NEVER = "vault-1"  # a room that no policy of the campaign has


@dataclass(frozen=True)
class Scale:
    """How many changes of each sort; those of policies are the most."""

    policies: int
    certificates: int
    rotations: int


SCALES = {"short": Scale(24, 6, 2), "full": Scale(100, 20, 10)}


@dataclass
class Truth:
    """What is in force. `changes` counts the beginnings and ends of changes."""

    board: bool = False
    signer: str = FIRST_KEY
    verifying: frozenset[str] = frozenset({FIRST_KEY, "APIolder"})
    changing: bool = False
    changes: int = 0
    board_of: dict[str, bool] = field(default_factory=dict)  # by policy revision


@dataclass
class Figures:
    calls: int = 0
    handshakes: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    certificates: int = 0
    rotations: int = 0


@dataclass
class Campaign:
    server: Deployment
    scale: Scale
    truth: Truth = field(default_factory=Truth)
    figures: Figures = field(default_factory=Figures)
    secrets: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    last: IssuedToken | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def client(self, stem: str) -> AuthClient:
        folder = self.server.directory
        return AuthClient(
            f"localhost:{self.server.port}",
            ca=folder / "server-ca.pem",
            cert=folder / f"{stem}.pem",
            key=folder / f"{stem}.key",
        )

    async def caller(self, number: int) -> None:
        """One connection after the other, a call after the other."""
        chance = random.Random(number)
        while not self.over.is_set():
            async with self.client(f"web-{number}") as client:
                self.figures.handshakes += 1
                for _ in range(CALLS_A_CONNECTION):
                    if self.over.is_set():
                        return
                    await self.call(client, chance.choice(["consult-1", "board-1", NEVER]))
                    await asyncio.sleep(PAUSE * chance.random() * 2)

    async def call(self, client: AuthClient, room: str) -> None:
        before, changing, began = self.truth.changes, self.truth.changing, time.perf_counter()
        got: IssuedToken | None = None
        try:
            got = await client.issue_token(room=room, identity="user-1", role="guest")
        except Denied as denied:
            if denied.reason != "ROOM_NOT_PERMITTED":
                self.figures.wrong.append(f"{room}: {denied}")
        except AuthError as error:
            self.figures.failed.append(f"{room}: {error}")
            return
        finally:
            self.figures.calls += 1
            self.figures.latencies.append(time.perf_counter() - began)
        self.last = got or self.last
        steady = not changing and before == self.truth.changes
        if problem := self.problem(room, got, steady=steady):
            self.figures.wrong.append(f"{room}: {problem}")

    def problem(self, room: str, got: IssuedToken | None, *, steady: bool) -> str:
        """Why the answer is wrong; empty when it is right."""
        if got is None:
            expected = room == NEVER or (room == "board-1" and not (steady and self.truth.board))
            return "" if expected else "denied although permitted"
        jwt.decode(got.token, self.secrets[got.key_id], algorithms=["HS256"], issuer=got.key_id)
        if room == NEVER or (room == "board-1" and not self.truth.board_of.get(got.policy_revision)):
            return f"permitted by revision {got.policy_revision}"
        if steady and got.key_id != self.truth.signer:
            return f"signed by {got.key_id} and not by {self.truth.signer}"
        return ""

    async def gateway(self) -> None:
        """Has the token verified that was issued last, again and again."""
        async with self.client("hooks") as client:
            while not self.over.is_set():
                if self.last is not None:
                    await self.verify(client, self.last)
                await asyncio.sleep(PAUSE)

    async def verify(self, client: AuthClient, token: IssuedToken) -> None:
        before, changing, verified = self.truth.changes, self.truth.changing, True
        self.figures.calls += 1
        try:
            await client.verify_token(token.token)
        except VerificationFailed as refused:
            verified = False
            if refused.reason != "KEY_UNKNOWN":
                self.figures.wrong.append(f"verify: {refused}")
        except AuthError as error:
            self.figures.failed.append(f"verify: {error}")
            return
        steady = not changing and before == self.truth.changes
        if steady and verified != (token.key_id in self.truth.verifying):
            self.figures.wrong.append(f"verify: a token of {token.key_id}: {verified}")

    async def change(self, apply: Callable[[], object], shows: Callable[[], Awaitable[bool]], **truth: object) -> None:
        """Makes a change, waits until it shows, and takes note of what is true from then on."""
        self.truth.changing, self.truth.changes = True, self.truth.changes + 1
        began = time.perf_counter()
        apply()
        async with asyncio.timeout(10):
            while not await shows():  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.005)
        self.figures.effects.append(time.perf_counter() - began)
        for name, value in truth.items():
            setattr(self.truth, name, value)
        # What is seen on one connection is in force for all: they share the process.
        self.truth.changing, self.truth.changes = False, self.truth.changes + 1

    async def run(self) -> None:
        async with self.client("web-0") as watcher:
            start = (await watcher.get_caller()).policy_revision
            self.truth.board_of[start] = False
            async with asyncio.TaskGroup() as tasks:
                for number in range(CONNECTIONS):
                    tasks.create_task(self.caller(number))
                tasks.create_task(self.gateway())
                await asyncio.sleep(0.5)
                for number in range(self.scale.policies):
                    await self.round(number, watcher)
                    await asyncio.sleep(0.1)
                self.over.set()

    async def round(self, number: int, watcher: AuthClient) -> None:
        await self.new_policy(number, watcher)
        if due(number, self.scale.rotations, self.scale.policies):
            await self.new_key(f"APIround{number}", watcher)
        if due(number, self.scale.certificates, self.scale.policies):
            await self.new_certificate()

    async def new_policy(self, number: int, watcher: AuthClient) -> None:
        board = not self.truth.board
        rooms = "[{prefix: consult-}, {prefix: board-}]" if board else "[{prefix: consult-}]"
        text = POLICY.replace("[{prefix: consult-}]", rooms) + f"# {number}\n"
        old = (await watcher.get_caller()).policy_revision

        async def shows() -> bool:
            revision = (await watcher.get_caller()).policy_revision
            return revision != old

        self.truth.board_of[sha256(text.encode()).hexdigest()[:16]] = board
        await self.change(lambda: replace(self.server.directory / "policy.yaml", text.encode()), shows, board=board)

    async def new_key(self, key: str, watcher: AuthClient) -> None:
        """A whole rotation, as docs/operations.md has it: add, promote, retire, remove."""
        path, old, now = self.server.directory / "alpha.yaml", self.truth.signer, int(time.time())
        export = self.server.directory / f"{key}.export"
        both, kept = self.truth.verifying | {key}, self.truth.verifying - {old} | {key}

        async def signs() -> bool:
            return (await watcher.issue_token(room="consult-1", identity="user-1", role="guest")).key_id == key

        added = lifecycle.NewKey(key, export=export)
        await self.change(lambda: lifecycle.add(path, added, now), self.reloaded("keys"), verifying=both)
        self.secrets[key] = export.read_text().split()[1]
        await self.change(lambda: lifecycle.promote(path, key, now), signs, signer=key)
        await asyncio.sleep(PAUSE * 3)  # so that tokens of both keys are verified
        await self.change(lambda: lifecycle.retire(path, old, now), self.reloaded("keys"), verifying=kept)
        await self.change(lambda: lifecycle.retire(path, old, now, remove=True), self.reloaded("keys"))
        self.figures.rotations += 1

    def reloaded(self, kind: str) -> Callable[[], Awaitable[bool]]:
        """Whether the log says, from now on, that files of a kind were reloaded."""
        log = self.server.directory / "server.log"
        seen = log.stat().st_size

        async def shows() -> bool:
            with log.open("rb") as file:
                file.seek(seen)
                lines = file.read().splitlines()
            return any(b'"event":"reloaded"' in line and f'"kind":"{kind}"'.encode() in line for line in lines)

        return shows

    async def new_certificate(self) -> None:
        renewed = self.server.server_ca.issue(dns=["localhost"], usages=[SERVER])

        await self.change(lambda: renewed.write(self.server.directory, "server"), self.reloaded("certificate"))
        self.figures.certificates += 1


def due(number: int, times: int, rounds: int) -> bool:
    """Whether it is this round's turn, of something that is done `times` in all rounds, evenly."""
    return (number + 1) * times // rounds > number * times // rounds


def replace(path: Path, content: bytes) -> None:
    """Puts a file in place in one step, as docs/operations.md asks."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


def main() -> int:
    scale = os.environ.get("CAMPAIGN_SCALE", "full")
    with tempfile.TemporaryDirectory() as folder:
        server = Deployment(Path(folder))
        server.write()
        for number in range(CONNECTIONS):
            server.example_ca.issue(uris=["spiffe://example.org/web"]).write(server.directory, f"web-{number}")
        server.example_ca.issue(uris=["spiffe://example.org/hooks"]).write(server.directory, "hooks")
        server.start()
        campaign = Campaign(server, SCALES[scale])
        began = time.perf_counter()
        try:
            asyncio.run(campaign.run())
        finally:
            server.stop()
        return report(campaign, time.perf_counter() - began)


def report(campaign: Campaign, seconds: float) -> int:
    figures = campaign.figures
    for line in (*figures.failed[:5], *figures.wrong[:5]):
        sys.stderr.write(f"  {line}\n")
    latency = statistics.quantiles(figures.latencies, n=1000)
    sys.stdout.write(
        f"reload campaign: {len(figures.effects)} reloads in {seconds:.0f} s ({campaign.scale.policies} policies, "
        f"{figures.certificates} certificates, {figures.rotations} key rotations of 4 each), in force after "
        f"{statistics.median(figures.effects) * 1000:.0f} ms (worst {max(figures.effects) * 1000:.0f}); "
        f"{figures.calls} calls from {CONNECTIONS} connections, {figures.handshakes} handshakes, "
        f"p50 {latency[499] * 1000:.1f} ms, p99 {latency[989] * 1000:.1f} ms; "
        f"{len(figures.failed)} failed, {len(figures.wrong)} wrong\n"
    )
    return 1 if figures.failed or figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
