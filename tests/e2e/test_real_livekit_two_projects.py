"""Two real LiveKit servers with keys of their own, as two projects of one livekit-auth server."""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from e2e.deployment import Deployment
from e2e.livekit_server import Ports, livekit_server
from e2e.participants import RefusedError, joined
from e2e.webhook_listener import WebhookListener, webhook_listener
from livekit_auth import AuthClient, Denied, InvalidRequest, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICY = """\
version: 1
roles:
  guest: {video: {room_join: true}}
callers:
  - id: spiffe://dev.example.org/web  # of both projects, without a default: it has to name one
    allow: [{projects: [default, second], roles: [guest], rooms: [{prefix: consult-}], identities: [{prefix: user-}]}]
    verify: {tokens: [default, second], webhooks: [default, second]}
  - id: spiffe://dev.example.org/agents  # of the first alone
    allow: [{projects: [default], roles: [guest], rooms: [{prefix: consult-}], identities: [{prefix: user-}]}]
    verify: {tokens: [default], webhooks: [default]}
  - id: spiffe://dev.example.org/webhooks  # of the second alone
    verify: {tokens: [second], webhooks: [second]}
"""


@dataclass(frozen=True, slots=True)
class Projects:
    """Clients of callers of both projects, of the first and of the second, and each LiveKit's webhooks."""

    both: AuthClient
    first: AuthClient
    second: AuthClient
    url: dict[str, str]
    webhooks: dict[str, WebhookListener]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def projects(livekit_program: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Projects]:
    folder = tmp_path_factory.mktemp("projects")
    async with AsyncExitStack() as stack:
        listeners = {name: await stack.enter_async_context(webhook_listener()) for name in ("default", "second")}
        ports = {name: Ports.free() for name in listeners}
        # The second folder is there for its key alone; no server runs from it.
        folders = {name: Deployment.create(folder / name, ports[name].url) for name in listeners}
        for name, keys in folders.items():
            (folder / f"livekit-{name}").mkdir()
            stack.enter_context(
                livekit_server(livekit_program, folder / f"livekit-{name}", ports[name], keys, listeners[name].url)
            )
        stack.enter_context(_serve_both(folders["default"], folders["second"], ports["second"].url))
        web, agents, webhooks = [
            await stack.enter_async_context(folders["default"].client(caller))
            for caller in ("web", "agents", "webhooks")
        ]
        yield Projects(web, agents, webhooks, {name: port.url for name, port in ports.items()}, listeners)


@contextmanager
def _serve_both(server: Deployment, second: Deployment, url: str) -> Iterator[None]:
    yaml, file = YAML(), server.directory / "server.yaml"
    settings = yaml.load(file)
    settings["projects"]["second"] = {"url": url, "keys": {"file": str(second.key_file)}}
    yaml.dump(settings, file)
    (server.directory / "policy.yaml").write_text(POLICY)
    with server.serve():
        yield


async def _issue(projects, project, room):
    return await projects.both.issue_token(project=project, role="guest", room=room, identity="user-1")


@pytest.mark.parametrize("project", ["default", "second"])
async def test_each_project_lets_its_own_tokens_in(projects, room, project):
    token = await _issue(projects, project, room)
    assert (token.project, token.url) == (project, projects.url[project])
    async with joined(token) as here:
        assert here.name == room


@pytest.mark.parametrize(("project", "other"), [("default", "second"), ("second", "default")])
async def test_a_token_of_one_project_is_refused_by_the_others_livekit(projects, room, project, other):
    token = await _issue(projects, project, room)
    with pytest.raises(RefusedError):
        async with joined(_Elsewhere(token.token, projects.url[other])):
            pytest.fail("LiveKit let a stranger's token in")


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    token: str
    url: str

    def __repr__(self) -> str:
        return "<a token of another project>"


async def test_caller_of_two_projects_must_name_one(projects, room):
    with pytest.raises(InvalidRequest) as refused:
        await projects.both.issue_token(role="guest", room=room, identity="user-1")
    assert refused.value.reason == "PROJECT_REQUIRED"


async def test_a_caller_of_one_project_gets_nothing_of_the_other(projects, room):
    assert (await projects.first.issue_token(role="guest", room=room, identity="user-1")).project == "default"
    with pytest.raises(Denied) as denied:
        await projects.first.issue_token(project="second", role="guest", room=room, identity="user-1")
    with pytest.raises(Denied) as unknown:
        await projects.first.issue_token(project="nosuch", role="guest", room=room, identity="user-1")
    assert denied.value.reason == unknown.value.reason == "PROJECT_NOT_PERMITTED"


@pytest.mark.parametrize(
    ("project", "verifier", "stranger"), [("default", "first", "second"), ("second", "second", "first")]
)
async def test_a_token_is_verified_for_its_projects_callers_alone(projects, room, project, verifier, stranger):
    token = await _issue(projects, project, room)
    assert (await getattr(projects, verifier).verify_token(token.token)).project == project
    with pytest.raises(VerificationFailed) as refused:
        await getattr(projects, stranger).verify_token(token.token)
    assert refused.value.reason == "KEY_UNKNOWN"


@pytest.mark.parametrize(
    ("project", "verifier", "stranger"), [("default", "first", "second"), ("second", "second", "first")]
)
async def test_a_webhook_is_verified_for_its_projects_callers_alone(projects, room, project, verifier, stranger):
    async with joined(await _issue(projects, project, room)):
        delivery = await projects.webhooks[project].wait_for(room, "participant_joined")
    event = await getattr(projects, verifier).verify_webhook(delivery.body, delivery.authorization)
    assert (event.project, event.participant_identity) == (project, "user-1")
    with pytest.raises(VerificationFailed) as refused:
        await getattr(projects, stranger).verify_webhook(delivery.body, delivery.authorization)
    assert refused.value.reason == "KEY_UNKNOWN"


async def test_a_webhook_of_one_project_isnt_taken_for_the_others(projects, room):
    async with joined(await _issue(projects, "default", room)):
        delivery = await projects.webhooks["default"].wait_for(room, "room_started")
    with pytest.raises(VerificationFailed) as refused:
        await projects.both.verify_webhook(delivery.body, delivery.authorization, project="second")
    assert refused.value.reason == "KEY_UNKNOWN"
