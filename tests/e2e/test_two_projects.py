"""Two real LiveKit servers with a key each, as two projects of one service: nothing of one is good for the other."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from e2e.deployment import Deployment
from e2e.livekit_server import Ports, livekit_server
from e2e.participants import RefusedError, joined
from e2e.processes import interruptible
from e2e.secrecy import Forged
from e2e.webhook_listener import webhook_listener
from livekit_auth import Denied, InvalidRequest, VerificationFailed

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROJECTS = ("clinic", "school")
POLICY = """\
version: 1
roles:
  guest: {video: {room_join: true}}
callers:
  - id: spiffe://dev.example.org/web
    allow:
      - {projects: [clinic, school], roles: [guest], rooms: [{prefix: consult-}], identities: [{prefix: user-}]}
  - id: spiffe://dev.example.org/webhooks
    verify: {webhooks: [clinic, school], tokens: [clinic, school]}
  - id: spiffe://dev.example.org/agents
    allow:
      - {projects: [school], roles: [guest], rooms: any, identities: any}
    verify: {webhooks: [school], tokens: [school]}
"""


@dataclass(frozen=True, slots=True)
class Two:
    """Clients of one service, and what both servers sent. `both` may verify for both projects, `school` for one."""

    web: object
    both: object
    school: object
    listeners: dict
    urls: dict

    async def token(self, project, room):
        return await self.web.issue_token(project=project, room=room, identity="user-1", role="guest")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(livekit_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-projects")
    ports = {project: Ports.free() for project in PROJECTS}
    made = {project: Deployment.create(folder / project, ports[project].url) for project in PROJECTS}
    service = made["clinic"]
    _serve_both(service, made, ports)
    async with AsyncExitStack() as stack:
        with ExitStack() as processes:
            processes.enter_context(interruptible())
            processes.enter_context(service.serve())
            listeners = {}
            for project in PROJECTS:
                listeners[project] = await stack.enter_async_context(webhook_listener())
                server = livekit_server(
                    livekit_program, made[project].directory, ports[project], made[project], listeners[project].url
                )
                processes.enter_context(server)
            callers = [await stack.enter_async_context(service.client(name)) for name in ("web", "webhooks", "agents")]
            yield Two(*callers, listeners, {project: ports[project].url for project in PROJECTS})


def _serve_both(service, made, ports):
    """Has the first deployment's server hold the keys of both."""
    yaml, file = YAML(), service.directory / "server.yaml"
    settings = yaml.load(file)
    settings["projects"] = {
        project: {"url": ports[project].url, "keys": {"file": str(made[project].key_file)}} for project in PROJECTS
    }
    yaml.dump(settings, file)
    (service.directory / "policy.yaml").write_text(POLICY)


@pytest.mark.parametrize(("own", "other"), [PROJECTS, PROJECTS[::-1]])
async def test_a_token_is_good_for_its_own_server_alone(two, room, own, other):
    token = await two.token(own, room)
    assert token.url == two.urls[own]
    async with joined(token) as here:
        assert here.name == room
    with pytest.raises(RefusedError):
        async with joined(Forged(token.token, two.urls[other])):
            pass


async def test_who_has_several_projects_names_one(two, room):
    with pytest.raises(InvalidRequest) as refused:
        await two.token("", room)
    assert refused.value.reason == "PROJECT_REQUIRED"


async def test_who_has_one_project_cannot_have_the_others(two, room):
    with pytest.raises(Denied) as denied:
        await two.school.issue_token(project="clinic", room=room, identity="user-1", role="guest")
    assert denied.value.reason == "PROJECT_NOT_PERMITTED"
    token = await two.school.issue_token(room=room, identity="user-1", role="guest")
    assert (token.project, token.url) == ("school", two.urls["school"])


async def test_webhooks_are_told_apart_by_project(two):
    for project, delivery in (await _deliveries(two)).items():
        event = await two.both.verify_webhook(delivery.body, delivery.authorization)
        assert (event.project, event.room) == (project, delivery.room)
        assert (await two.both.verify_webhook(delivery.body, delivery.authorization, project)).project == project


async def test_a_webhook_of_one_project_is_none_of_the_other(two):
    deliveries = await _deliveries(two)
    for project, delivery in deliveries.items():
        (other,) = set(PROJECTS) - {project}
        assert await _refusal(two.both.verify_webhook(delivery.body, delivery.authorization, other)) == "KEY_UNKNOWN"
    clinic = deliveries["clinic"]
    assert await _refusal(two.school.verify_webhook(clinic.body, clinic.authorization)) == "KEY_UNKNOWN"


async def test_a_token_of_one_project_tells_nothing_to_the_other(two, room):
    clinic, school = await two.token("clinic", room), await two.token("school", room)
    assert (await two.both.verify_token(clinic.token)).project == "clinic"
    assert (await two.school.verify_token(school.token)).project == "school"
    assert await _refusal(two.school.verify_token(clinic.token)) == "KEY_UNKNOWN"


async def _deliveries(two):
    room, deliveries = f"consult-{secrets.token_hex(4)}", {}
    for project in PROJECTS:
        async with joined(await two.token(project, room)):
            deliveries[project] = await two.listeners[project].wait_for(room, "participant_joined")
    return deliveries


async def _refusal(call):
    with pytest.raises(VerificationFailed) as refused:
        await call
    return refused.value.reason
