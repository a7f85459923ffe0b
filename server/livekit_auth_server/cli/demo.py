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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from livekit_auth import AuthClient, AuthError
from livekit_auth_server.cli import devkit
from livekit_auth_server.cli.terminal import REFUSED, err, out, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from livekit_auth import IssuedToken

PATIENCE = 20.0  # seconds
_COLUMN = 36  # where the results begin: 80 columns hold every line
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

    def step(self, what: str, shown: str = "", **facts: object) -> None:
        """One thing that happened: in JSON with its facts, for a person with the line that says what came of it."""
        self.steps.append({"step": what, **facts})
        if not self.as_json:
            out.print(f"  [green]✓[/green] {what:<{_COLUMN}}[cyan]{escape(shown)}[/cyan]".rstrip())

    def detail(self, text: str) -> None:
        """A line for a person that belongs to the step before."""
        if not self.as_json:
            out.print(f"    {text}", markup=False, style="dim")


def run(*, as_json: bool) -> int:
    """Runs the demo; returns the exit code."""
    story = Story(as_json)
    with tempfile.TemporaryDirectory(prefix="livekit-auth-demo-") as name:
        directory = Path(name) / "deployment"
        try:
            devkit.write(directory, "127.0.0.1:0", "ws://127.0.0.1:7880")
            with _server(directory) as said:
                port = int(said("serving")["port"])
                address = f"127.0.0.1:{port}"
                story.chapter("A server, which alone holds the LiveKit secret")
                story.step("serves over mutual TLS 1.3", address, address=address)
                asyncio.run(_tell(story, directory, f"localhost:{port}"))
                _selfcheck(story, said("selfcheck passed"))
        except (DemoError, AuthError, OSError) as error:
            err.print(f"The demo failed: {error}", style="red", markup=False)
            return REFUSED
    if as_json:
        print_json({"ok": True, "steps": story.steps})
    else:
        out.print("\n[green bold]Every step went as expected.[/green bold] To make such a deployment to keep:")
        out.print("  livekit-auth-server dev --dir ./dev")
    return 0


@contextmanager
def _server(directory: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A server process; yields what waits for an event of its log. It is stopped, by its own pid, whatever happens."""
    log = directory.parent / "server.log"
    serve = ["-m", "livekit_auth_server.cli", "serve", "--config", str(directory / "server.yaml"), "--json"]
    with log.open("wb") as stream, subprocess.Popen([sys.executable, *serve], stderr=stream) as process:  # noqa: S603
        try:
            yield partial(_line, process, log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _line(process: subprocess.Popen[bytes], log: Path, event: str) -> dict[str, Any]:
    """The line of the server's log with this event, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if f'"event":"{event}"' in line:
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.02)
    raise DemoError(f"the server didn't say {event}: {log.read_text()[-500:]}")


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
    story.chapter("A web backend, with a client certificate and no secret")
    me = await web.get_caller()
    story.step("asks who it is", me.workload_id, workload_id=me.workload_id)
    token = await web.issue_token(room="consult-42", identity="user-7", role="guest")
    _tell_token(story, "gets a guest's token", token, decision_id=token.decision_id)
    claims = livekit.verify(token.token)
    if claims.identity != "user-7" or claims.video.room != "consult-42" or not claims.video.room_join:
        raise DemoError("livekit-api reads another token than was asked for")
    shown = f"{claims.identity} may join {claims.video.room}"
    story.step("livekit-api verifies it", shown, identity=claims.identity, room=claims.video.room)


async def _agent_worker(story: Story, agents: AuthClient, livekit: _LiveKit) -> None:
    story.chapter("An agent worker, without LIVEKIT_API_SECRET in its environment")
    token = await agents.issue_token(role="agent-worker")
    _tell_token(story, "gets a token to register with", token)
    if not livekit.verify(token.token).video.agent:
        raise DemoError("livekit-api reads no agent grant in the worker's token")
    story.step("livekit-api verifies it", "may register as an agent", agent=True)


async def _webhook_consumer(story: Story, webhooks: AuthClient, livekit: _LiveKit) -> None:
    story.chapter("A webhook consumer, which can't sign anything itself")
    body, authorization = livekit.webhook(EVENT)
    event = await webhooks.verify_webhook(body, authorization)
    facts = {"type": event.type, "room": event.room, "participant": event.participant_identity}
    shown = f"{event.type}: {event.participant_identity} in {event.room}"
    story.step("learns that LiveKit sent an event", shown, **facts)
    await webhooks.ack_webhook(event)
    again = await webhooks.verify_webhook(body, authorization)
    if not again.is_duplicate:
        raise DemoError("a redelivered webhook wasn't reported as a duplicate")
    story.step("handles it, and gets it once more", "duplicate", duplicate=again.is_duplicate)
    altered = body.replace(b"user-7", b"user-8")
    await _expect(story, "shows an altered body", "BODY_ALTERED", webhooks.verify_webhook(altered, authorization))


async def _refusals(story: Story, web: AuthClient, agents: AuthClient) -> None:
    story.chapter("Asking for more than the policy allows is refused")
    outside = web.issue_token(room="board-1", identity="user-7", role="guest")
    await _expect(story, "the web backend: another room", "ROOM_NOT_PERMITTED", outside)
    other_role = web.issue_token(role="agent-worker")
    await _expect(story, "the web backend: another role", "ROLE_NOT_PERMITTED", other_role)
    too_long = web.issue_token(room="consult-42", identity="user-7", role="guest", ttl=timedelta(hours=24))
    await _expect(story, "the web backend: a day's token", "TTL_NOT_PERMITTED", too_long)
    webhook = agents.verify_webhook(b"{}", "a.b.c")
    await _expect(story, "the agents: a webhook check", "PROJECT_NOT_PERMITTED", webhook)


def _selfcheck(story: Story, line: dict[str, Any]) -> None:
    story.chapter("The server compares itself with livekit-api, in a process of its own")
    shown = f"{line['tokens']} tokens, {line['keys']} key: no difference"
    story.step("mints every role, tries every key", shown, tokens=line["tokens"], keys=line["keys"])


async def _expect(story: Story, what: str, reason: str, call: Awaitable[object]) -> None:
    """Makes a call that must be refused for this reason."""
    try:
        await call
    except AuthError as error:
        if error.reason != reason:
            raise DemoError(f"{what}: expected {reason}, got {error.reason}") from error
        shown = f"{reason}, decision {error.decision_id[:8]}…" if error.decision_id else f"refused: {reason}"
        story.step(what, shown, code=error.code, reason=error.reason, decision_id=error.decision_id or "none")
    else:
        raise DemoError(f"{what}: expected {reason}, and it was permitted")


def _tell_token(story: Story, what: str, token: IssuedToken, **facts: object) -> None:
    """A token as it may be shown: its claims and a fingerprint, never itself."""
    payload = token.token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    digest = hashlib.sha256(token.token.encode()).hexdigest()[:16]
    minutes = (claims["exp"] - claims["nbf"]) // 60
    story.step(what, f"valid for {minutes} minutes, SHA-256 {digest[:8]}…", claims=claims, sha256=digest, **facts)
    granted = [name if value is True else f"{name} {value}" for name, value in claims["video"].items() if value]
    story.detail(", ".join([*([f"sub {claims['sub']}"] if claims["sub"] else []), *granted]))


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
