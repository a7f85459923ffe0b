"""Key rotations as docs/operations.md has them, its commands run as they stand there, under load on a real LiveKit.

livekit-server reads its keys at the start alone, so the procedure restarts it. Nobody can join while it is away: the
load keeps its joins off LiveKit then, and goes on with everything else. No call may fail at any time.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from e2e import tokens
from e2e.deployment import PROGRAM, ApiKey, Deployment
from e2e.livekit_server import Ports, livekit_server
from e2e.processes import run
from e2e.secrecy import Forged, keep_secret
from e2e.signalling import HandshakeRefusedError, signalling
from e2e.webhook_listener import WebhookListener, webhook_listener
from livekit_auth import VerificationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from livekit_auth import AuthClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
PATIENCE = 10  # seconds
PEOPLE = 4
TTL = timedelta(seconds=2)  # so that old tokens are soon gone
POLICY = """\
version: 1
roles:
  guest: {video: {room_join: true}}
callers:
  - id: spiffe://dev.example.org/web
    allow: [{projects: [default], roles: [guest], rooms: [{prefix: consult-}], identities: [{prefix: user-}]}]
    verify: {tokens: [default], webhooks: [default]}
"""


@dataclass
class LiveKit:
    """A livekit-server with a key file of its own. `joins` are under way; none begin while it is away."""

    program: Path
    folder: Path
    url: str
    ports: Ports
    webhooks: WebhookListener
    key: ApiKey
    up: asyncio.Event = field(default_factory=asyncio.Event)
    joins: int = 0
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def key_file(self) -> Path:
        return self.folder / "livekit-keys.yaml"

    async def start(self) -> None:
        """Starts with the keys of its file; the key signs webhooks."""
        server = livekit_server(self.program, self.folder, self.ports, self, self.webhooks.url)
        await asyncio.to_thread(self.running.enter_context, server)
        self.up.set()

    async def stop(self) -> None:
        self.up.clear()
        while self.joins:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self.running.close)

    async def restart(self, key: ApiKey) -> None:
        await self.stop()
        self.key = key
        await self.start()

    @asynccontextmanager
    async def joining(self) -> AsyncIterator[None]:
        await self.up.wait()
        self.joins += 1
        try:
            yield
        finally:
            self.joins -= 1


@dataclass
class Load:
    """What people and the consumer of webhooks do all the time, and the key of all that went well, in order."""

    client: AuthClient
    livekit: LiveKit
    tokens: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    webhooks: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    longest_pause: float = 0
    stopping: bool = False

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Goes on until the block ends."""
        people = [self.person(number) for number in range(PEOPLE)]
        tasks = [asyncio.create_task(one) for one in (*people, self.caller(), self.consumer())]
        try:
            yield
        finally:
            self.stopping = True
            await asyncio.gather(*tasks)

    async def person(self, number: int) -> None:
        """Gets a token and joins with it, again and again."""
        count = 0
        while not self.stopping:
            count += 1
            async with self.livekit.joining():
                await self.attempt(self.join(f"consult-{number}-{count}"))
            await asyncio.sleep(0.05)

    async def join(self, room: str) -> None:
        token = await self.client.issue_token(room=room, identity="user-1", role="guest", ttl=TTL)
        async with signalling(token) as signals:
            assert (await signals.receive("join")).join.room.name == room
        self.joins.append(token.key_id)

    async def caller(self) -> None:
        """Gets tokens and has them verified, whether LiveKit is there or not."""
        last = time.monotonic()
        while not self.stopping:
            await self.attempt(self.issue())
            now = time.monotonic()
            self.longest_pause, last = max(self.longest_pause, now - last), now
            await asyncio.sleep(0.01)

    async def issue(self) -> None:
        token = await self.client.issue_token(room="consult-0", identity="user-1", role="guest", ttl=TTL)
        assert (await self.client.verify_token(token.token)).key_id == token.key_id
        self.tokens.append(token.key_id)

    async def consumer(self) -> None:
        """Verifies every webhook as it comes."""
        seen = 0
        while not self.stopping or seen < len(self.livekit.webhooks.deliveries):
            for delivery in self.livekit.webhooks.deliveries[seen:]:
                seen += 1
                await self.attempt(self.verify(delivery))
            await asyncio.sleep(0.02)

    async def verify(self, delivery: Any) -> None:
        event = await self.client.verify_webhook(delivery.body, delivery.authorization)
        self.webhooks.append(event.key_id)

    async def attempt(self, call: Any) -> None:
        try:
            await call
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the test is about
            self.failed.append(f"{type(error).__name__}: {error}")

    async def sees(self, what: list[str], key_id: str, count: int = 5) -> None:
        """Waits until the last of these are of a key."""
        start = len(what)
        async with asyncio.timeout(PATIENCE):
            while len(what) < start + count or set(what[-count:]) != {key_id}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@dataclass
class Operator:
    """Runs the commands of a section of docs/operations.md, each once and in their order."""

    deployment: Deployment
    old: ApiKey
    commands: list[str]
    output: list[str] = field(default_factory=list)

    @classmethod
    def reading(cls, section: str, deployment: Deployment, old: ApiKey) -> Operator:
        text = OPERATIONS.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
        blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        return cls(deployment, old, [line for line in lines if line])

    async def next(self, expected: str) -> None:
        """Runs the next command, which must be the expected one; waits until a change of keys is in force."""
        command = self.commands.pop(0)
        assert command.startswith(expected)
        reloads = self.reloads()
        await asyncio.to_thread(self.run, command.replace("APIold", self.old.id))
        if command.startswith("livekit-auth-server keys"):
            async with asyncio.timeout(PATIENCE):
                while self.reloads() == reloads:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.02)

    def run(self, command: str) -> None:
        command = command.replace("livekit-auth-server", str(PROGRAM))
        done = subprocess.run(
            ["/bin/sh", "-euc", command], cwd=self.deployment.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.output += [done.stdout, done.stderr]

    def reloads(self) -> int:
        log = self.deployment.log.read_text()
        return len([line for line in log.splitlines() if '"reloaded"' in line and '"keys"' in line])


@dataclass
class Site:
    deployment: Deployment
    livekit: LiveKit
    load: Load
    old: ApiKey

    def new_key(self) -> ApiKey:
        """The key that the commands made, as livekit-server has it."""
        keys = YAML(typ="safe").load(self.livekit.key_file)
        return ApiKey("APInew", keep_secret(keys["APInew"]))


@pytest_asyncio.fixture(loop_scope="session")
async def site(livekit_program: Path, tmp_path: Path) -> AsyncIterator[Site]:
    """Both servers with one key, and the service's key file in the form with states."""
    async with AsyncExitStack() as stack:
        webhooks, ports = await stack.enter_async_context(webhook_listener()), Ports.free()
        deployment = Deployment.create(tmp_path / "deployment", ports.url)
        (deployment.directory / "policy.yaml").write_text(POLICY)
        old = deployment.key
        livekit = LiveKit(livekit_program, deployment.directory, ports.url, ports, webhooks, old)
        livekit.key_file.touch(mode=0o600)
        livekit.key_file.write_bytes(deployment.key_file.read_bytes())
        run("keys convert", [PROGRAM, "keys", "convert", deployment.key_file])
        stack.enter_context(deployment.serve())
        stack.push_async_callback(livekit.stop)
        await livekit.start()
        client = await stack.enter_async_context(deployment.client("web"))
        yield Site(deployment, livekit, Load(client, livekit), old)


async def test_a_rotation_by_the_book_fails_no_call(site: Site) -> None:
    old, load, livekit = site.old, site.load, site.livekit
    operator = Operator.reading("Rotate a LiveKit key without a failed call", site.deployment, old)
    async with load.going():
        await load.sees(load.joins, old.id)
        await load.sees(load.webhooks, old.id)
        await operator.next("livekit-auth-server keys add")
        await load.sees(load.joins, old.id)
        await operator.next("cat new-key.yaml >> ")
        new = site.new_key()
        await livekit.restart(new)  # with both keys; webhooks by the new one
        await load.sees(load.webhooks, new.id)
        await load.sees(load.joins, old.id)
        await operator.next("livekit-auth-server keys promote")
        await load.sees(load.joins, new.id)
        await asyncio.sleep(TTL.total_seconds())
        livekit.key_file.write_text(f"{new.id}: {new.secret}\n")
        await livekit.restart(new)  # without the old one
        await load.sees(load.joins, new.id)
        await operator.next("livekit-auth-server keys retire keys.yaml APIold")
        await operator.next("livekit-auth-server keys retire keys.yaml APIold --remove")
        await load.sees(load.joins, new.id)
        await load.sees(load.webhooks, new.id)
    assert load.failed == []
    assert operator.commands == []
    for seen in (load.tokens, load.joins, load.webhooks):
        assert seen == sorted(seen, key=(old.id, new.id).index)  # the old key, then the new one, and never back
    assert load.longest_pause < 2
    await _assert_gone(site)
    _assert_unseen(site, operator, new)


async def test_a_leaked_key_is_refused_at_once_and_everywhere(site: Site) -> None:
    operator = Operator.reading("Replace a LiveKit key that leaked", site.deployment, site.old)
    old = await site.load.client.issue_token(room="consult-1", identity="user-1", role="guest")
    await operator.next("livekit-auth-server keys add")
    await operator.next("livekit-auth-server keys promote")
    with pytest.raises(VerificationFailed) as refused:
        await site.load.client.verify_token(old.token)
    assert refused.value.reason == "KEY_UNKNOWN"
    await operator.next("cat new-key.yaml > ")
    assert operator.commands == []
    new = site.new_key()
    await site.livekit.restart(new)
    async with site.load.going():
        await site.load.sees(site.load.joins, new.id)
        await site.load.sees(site.load.webhooks, new.id)
    assert site.load.failed == []
    await _assert_gone(site)
    _assert_unseen(site, operator, new)


async def _assert_gone(site: Site) -> None:
    """Nobody takes what the old key signs."""
    token = site.old.sign(tokens.guest_claims("consult-1"))
    with pytest.raises(VerificationFailed):
        await site.load.client.verify_token(token)
    with pytest.raises(HandshakeRefusedError):
        async with signalling(Forged(token, site.livekit.url)):
            pytest.fail("LiveKit took a token of the old key")


def _assert_unseen(site: Site, operator: Operator, new: ApiKey) -> None:
    shown = "".join(operator.output) + site.deployment.log.read_text()
    assert new.secret not in shown
    assert site.old.secret not in shown
