"""The main job on one machine: a server with a throwaway PKI, and callers that hold nothing but a certificate.

Tokens are checked with livekit-api's own verifier and the webhook is signed as LiveKit signs it; both need the secret,
which only "LiveKit" and the server hold here. Tokens are shown as decoded claims and a fingerprint.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livekit_auth import AuthClient, AuthError
from livekit_auth._extras import how_to_install
from livekit_auth_server.cli import devkit
from livekit_auth_server.cli.terminal import REFUSED, err, out, print_json
from livekit_auth_server.process.operating_system import MISUSE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from livekit_auth import IssuedToken

START_TIMEOUT = 20.0  # seconds
EVENT = {
    "event": "participant_joined",
    "room": {"sid": "RM_demo", "name": "consult-42"},
    "participant": {"sid": "PA_demo", "identity": "user-7"},
    "id": "EV_demo",
}


class DemoError(Exception):
    """Something didn't go as it should."""


@dataclass(slots=True)
class Story:
    """Tells what happens, for a person or as JSON."""

    as_json: bool
    steps: list[dict[str, Any]] = field(default_factory=list)

    def chapter(self, title: str) -> None:
        """Opens a part of the story."""
        if not self.as_json:
            out.print(f"\n[bold]{title}[/bold]")

    def step(self, what: str, **facts: object) -> None:
        """One thing that happened, with what is worth knowing of it."""
        self.steps.append({"step": what, **facts})
        if not self.as_json:
            out.print(f"  [green]✓[/green] {what}")
            for name, value in facts.items():
                text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
                out.print(f"      {name}: {text}", markup=False, style="dim")


def run(*, as_json: bool) -> int:
    """Runs the demo; returns the exit code."""
    try:
        from livekit.api import TokenVerifier  # noqa: F401 - its 0.6 s are the demo's alone
    except ImportError:
        message = f"The demo checks tokens with livekit-api: {how_to_install('livekit')}"
        err.print(message, style="red", markup=False)
        return MISUSE
    story = Story(as_json)
    with tempfile.TemporaryDirectory(prefix="livekit-auth-demo-") as name:
        directory = Path(name) / "deployment"
        try:
            devkit.write(directory, "127.0.0.1:0", "ws://127.0.0.1:7880")
            with _server(directory) as port:
                story.chapter("A server that holds the LiveKit secret")
                story.step("livekit-auth-server serves, TLS 1.3 with client certificates", address=f"127.0.0.1:{port}")
                asyncio.run(_tell(story, directory, f"localhost:{port}"))
        except (DemoError, AuthError, OSError) as error:
            err.print(f"The demo failed: {error}", style="red", markup=False)
            return REFUSED
    if as_json:
        print_json({"ok": True, "steps": story.steps})
    else:
        out.print(
            "\nEvery step went as it should. `livekit-auth-server dev --dir ./dev` makes such a deployment to keep."
        )
    return 0


@contextmanager
def _server(directory: Path) -> Iterator[int]:
    """A server process; yields its port. It is stopped, by its own pid, whatever happens."""
    log = directory.parent / "server.log"
    serve = ["-m", "livekit_auth_server.cli", "serve", "--config", str(directory / "server.yaml"), "--json"]
    with log.open("wb") as stream, subprocess.Popen([sys.executable, *serve], stderr=stream) as process:  # noqa: S603
        try:
            yield _port(process, log)
        finally:
            process.terminate()
            try:
                process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the server says it got."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"event":"serving"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.02)
    raise DemoError(f"the server didn't start: {log.read_text()[-500:]}")


async def _tell(story: Story, directory: Path, address: str) -> None:
    def client(name: str) -> AuthClient:
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        return AuthClient(address, ca=directory / "ca.pem", cert=certificate, key=key)

    livekit = _LiveKit.read(directory)
    async with client("web") as web, client("agents") as agents, client("webhooks") as webhooks:
        await _web_backend(story, web, livekit)
        await _agent_worker(story, agents, livekit)
        await _webhook_consumer(story, webhooks, livekit)
        await _refusals(story, web, agents)


async def _web_backend(story: Story, web: AuthClient, livekit: _LiveKit) -> None:
    story.chapter("A web backend, holding only a client certificate")
    me = await web.get_caller()
    story.step("asks who it is", workload_id=me.workload_id)
    token = await web.issue_token(room="consult-42", identity="user-7", role="guest")
    story.step("gets a guest's token", **_shown(token), decision_id=token.decision_id)
    claims = livekit.verify(token.token)
    if claims.identity != "user-7" or claims.video.room != "consult-42" or not claims.video.room_join:
        raise DemoError("livekit-api reads another token than was asked for")
    story.step("livekit-api verifies it", identity=claims.identity, room=claims.video.room)


async def _agent_worker(story: Story, agents: AuthClient, livekit: _LiveKit) -> None:
    story.chapter("An agent worker, without LIVEKIT_API_SECRET in its environment")
    token = await agents.issue_token(role="agent-worker")
    story.step("gets a token to register with", **_shown(token))
    if not livekit.verify(token.token).video.agent:
        raise DemoError("livekit-api reads no agent grant in the worker's token")
    story.step("livekit-api verifies it", agent=True)


async def _webhook_consumer(story: Story, webhooks: AuthClient, livekit: _LiveKit) -> None:
    story.chapter("A webhook consumer, which can't sign anything itself")
    body, authorization = livekit.webhook(EVENT)
    event = await webhooks.verify_webhook(body, authorization)
    story.step("learns that LiveKit sent it", type=event.type, room=event.room, participant=event.participant_identity)
    await webhooks.ack_webhook(event)
    again = await webhooks.verify_webhook(body, authorization)
    if not again.duplicate:
        raise DemoError("a redelivered webhook wasn't reported as a duplicate")
    story.step("handled it; the redelivery is reported", duplicate=again.duplicate)
    altered = body.replace(b"user-7", b"user-8")
    await _expect(story, "an altered body is refused", "BODY_ALTERED", webhooks.verify_webhook(altered, authorization))


async def _refusals(story: Story, web: AuthClient, agents: AuthClient) -> None:
    story.chapter("Asking for more than the policy allows")
    outside = web.issue_token(room="board-1", identity="user-7", role="guest")
    await _expect(story, "a room that isn't the web backend's", "ROOM_NOT_PERMITTED", outside)
    other_role = web.issue_token(role="agent-worker")
    await _expect(story, "a role that isn't the web backend's", "ROLE_NOT_PERMITTED", other_role)
    too_long = web.issue_token(room="consult-42", identity="user-7", role="guest", ttl=timedelta(hours=24))
    await _expect(story, "a token for a whole day", "TTL_NOT_PERMITTED", too_long)
    webhook = agents.verify_webhook(b"{}", "a.b.c")
    await _expect(story, "a webhook check by the agents", "PROJECT_NOT_PERMITTED", webhook)


async def _expect(story: Story, what: str, reason: str, call: Awaitable[object]) -> None:
    """Makes a call that must be refused for this reason."""
    try:
        await call
    except AuthError as error:
        if error.reason != reason:
            raise DemoError(f"{what}: expected {reason}, got {error.reason}") from error
        story.step(what, code=error.code, reason=error.reason, decision_id=error.decision_id or "none")
    else:
        raise DemoError(f"{what}: expected {reason}, and it was permitted")


def _shown(token: IssuedToken) -> dict[str, Any]:
    """A token as it may be shown: its claims and a fingerprint, never itself."""
    payload = token.token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {"claims": claims, "sha256": hashlib.sha256(token.token.encode()).hexdigest()[:16]}


@dataclass(frozen=True, slots=True)
class _LiveKit:
    """What a LiveKit server does with its key."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def read(cls, directory: Path) -> _LiveKit:
        key_id, _, secret = (directory / "keys.yaml").read_text().strip().partition(": ")
        return cls(key_id, secret)

    def verify(self, token: str) -> Any:  # noqa: ANN401 - livekit-api's Claims
        from livekit.api import TokenVerifier

        return TokenVerifier(self.key_id, self.secret).verify(token)

    def webhook(self, event: dict[str, Any]) -> tuple[bytes, str]:
        """A body and its Authorization header, as livekit/protocol's url_notifier makes them."""
        from livekit.api import AccessToken

        body = json.dumps({**event, "createdAt": str(int(time.time()))}).encode()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        token = AccessToken(self.key_id, self.secret).with_ttl(timedelta(minutes=5)).with_sha256(digest)
        return body, token.to_jwt()
