"""The main job with a real LiveKit server: `make demo-livekit`.

Nobody but the two servers has the secret; every caller here holds a certificate. Tokens are shown as decoded claims and
a fingerprint. Exit codes: 0 when all went as it should, 1 when something didn't, 2 without Go, 130 when interrupted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from e2e import tokens
from e2e.deployment import Deployment
from e2e.livekit_server import GoMissingError, Ports, binary, livekit_server
from e2e.participants import RefusedError, eventually, hears_something, joined, publishing
from e2e.processes import interruptible
from e2e.secrecy import Forged, claims, fingerprint, redacted
from e2e.signalling import HandshakeRefusedError, worker
from e2e.webhook_listener import webhook_listener
from livekit_auth import AuthError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from livekit import rtc

    from e2e.webhook_listener import WebhookListener
    from livekit_auth import IssuedToken

ROOM = "consult-42"
FAILED, NO_GO, INTERRUPTED = 1, 2, 130

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something didn't go as it should."""


def main() -> int:
    """Runs the demo; returns the exit code."""
    livekit_log = logging.getLogger("livekit")  # its client logs refused tokens whole
    livekit_log.addHandler(logging.NullHandler())
    livekit_log.propagate = False
    try:
        with interruptible():
            _chapter("A LiveKit server and livekit-auth; only these two hold the secret")
            program = binary(lambda: _step("livekit-server is built from its Go module: a minute or two, this once"))
            with tempfile.TemporaryDirectory(prefix="livekit-auth-demo-") as directory:
                asyncio.run(_show(program, Path(directory)))
    except GoMissingError as missing:
        _err.print(f"No demo: {missing}", style="red", markup=False)
        return NO_GO
    except KeyboardInterrupt:
        _err.print("Interrupted; both servers have been ended.", style="red")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a traceback could show a token
        _err.print(f"The demo failed: {redacted(str(error)) or type(error).__name__}", style="red", markup=False)
        return FAILED
    _out.print("\nEverything went as it should, and both servers have been ended.")
    return 0


async def _show(program: Path, directory: Path) -> None:
    ports = Ports.free()
    deployment = Deployment.create(directory / "deployment", ports.url)
    async with webhook_listener() as listener:
        with deployment.serve(), livekit_server(program, directory, ports, deployment, listener.url):
            _step(
                "livekit-auth-server serves, TLS 1.3 with client certificates", address=f"127.0.0.1:{deployment.port}"
            )
            _step("livekit-server serves", url=ports.url, key_id=deployment.key.id)
            await _web_backend(deployment)
            await _agent_worker(deployment)
            await _webhook_consumer(deployment, listener)


async def _web_backend(deployment: Deployment) -> None:
    _chapter("A web backend lets people into a room")
    async with deployment.client("web") as web:
        me = await web.get_caller()
        _step("the web backend is", workload_id=me.workload_id, policy_revision=me.policy_revision)
        first = await web.issue_token(room=ROOM, identity="user-7", role="guest", name="Ada")
        _step("livekit-auth issues a guest's token", **_shown(first))
        second = await web.issue_token(room=ROOM, identity="user-8", role="guest", name="Grace")
        await _conversation(first, second)

        _chapter("What nobody gets")
        board = web.issue_token(room="board-1", identity="user-7", role="guest")
        await _expect_refusal("the web backend asks for a room that isn't its own", "ROOM_NOT_PERMITTED", board)
        tampered = Forged(tokens.tampered(first.token, room="board-1"), first.url)
        try:
            async with joined(tampered):
                raise DemoError("LiveKit took a token that had been tampered with")
        except RefusedError as refused:
            _step("somebody changes the room in a token, and LiveKit refuses it", because=str(refused))


async def _conversation(first: IssuedToken, second: IssuedToken) -> None:
    async with joined(first) as speaker:
        _step("user-7 joins with it", room=speaker.name, name=speaker.local_participant.name)
        async with publishing(speaker) as published, joined(second) as listener:
            _step("user-8 joins too; user-7 publishes a tone", track=published.sid)
            publications = listener.remote_participants["user-7"].track_publications

            def received() -> rtc.Track | None:
                publication = publications.get(published.sid)
                return publication.track if publication else None

            await eventually(received, "user-8 receives the tone")
            track = received()
            if track is None or not await hears_something(track):
                raise DemoError("user-8 hears nothing")
            _step("user-8 hears it")


async def _agent_worker(deployment: Deployment) -> None:
    _chapter("An agent worker, without LIVEKIT_API_SECRET in its environment")
    async with deployment.client("agents") as agents, deployment.client("web") as web:
        token = await agents.issue_token(role="agent-worker")
        _step("livekit-auth issues a worker's token", **_shown(token))
        async with worker(token) as connection:
            registered = (await connection.register("interpreter")).register
        _step("LiveKit registers the worker", worker_id=registered.worker_id, livekit=registered.server_info.version)
        guest = await web.issue_token(room=ROOM, identity="user-9", role="guest")
        try:
            async with worker(guest):
                raise DemoError("LiveKit took a guest for a worker")
        except HandshakeRefusedError as refused:
            _step("a guest's token registers no worker", because=str(refused))


async def _webhook_consumer(deployment: Deployment, listener: WebhookListener) -> None:
    _chapter("A webhook consumer, which can't sign anything itself")
    await listener.wait_for(ROOM, "participant_left", times=2)
    async with deployment.client("webhooks") as webhooks:
        for delivery in listener.of(ROOM):
            event = await webhooks.verify_webhook(delivery.body, delivery.authorization)
            who = f" of {event.participant_identity}" if event.participant_identity else ""
            _step(f"{event.type}{who}: livekit-auth confirms that LiveKit signed it, with {event.key_id}")
        await webhooks.ack_webhook(event)
        if not (await webhooks.verify_webhook(delivery.body, delivery.authorization)).is_duplicate:
            raise DemoError("an acknowledged webhook isn't reported as a duplicate")
        _step("the last one is acknowledged; when it comes again, livekit-auth calls it a duplicate")
        altered = dataclasses.replace(delivery, body=delivery.body.replace(b"user-", b"boss-"))
        check = webhooks.verify_webhook(altered.body, altered.authorization)
        await _expect_refusal("somebody changes a body on its way", "BODY_ALTERED", check)


async def _expect_refusal(what: str, reason: str, call: Awaitable[object]) -> None:
    try:
        await call
    except AuthError as error:
        if error.reason != reason:
            raise DemoError(f"{what}: expected {reason}, and livekit-auth answered {error.reason}") from error
        _step(f"{what}, and livekit-auth refuses it", because=str(error))
    else:
        raise DemoError(f"{what}: expected {reason}, and livekit-auth permitted it")


def _shown(token: IssuedToken) -> dict[str, object]:
    return {"claims": claims(token.token), "sha256": fingerprint(token.token), "decision": token.decision_id}


def _chapter(title: str) -> None:
    _out.print(f"\n[bold]{title}[/bold]")


def _step(what: str, **facts: object) -> None:
    _out.print(f"  [green]✓[/green] {what}")
    for name, value in facts.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        _out.print(f"      {name}: {text}", markup=False, style="dim")


if __name__ == "__main__":
    sys.exit(main())
