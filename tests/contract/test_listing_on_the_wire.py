"""What the policy permits, listed by a client with gRPC's own message limit; and reloads between two pages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
from support.deployment import Deployment
from support.refusals import refusal
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = "spiffe://example.org/web"
ROOMS = [f"consult-{number:05}-{'x' * 180}" for number in range(20_000)]


def policy(comment: str = "") -> str:
    entry = {"name": "consult", "projects": "any", "roles": ["guest"], "rooms": [{"exact": room} for room in ROOMS]}
    entry["identities"] = [{"prefix": f"user-{comment}"}]
    return json.dumps(
        {
            "version": 1,
            "roles": {"guest": {"video": {"room_join": True, "can_publish": False}}},
            "callers": [{"id": WEB, "allow": [entry], "verify": {"tokens": ["alpha"]}}],
        }
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory: Path = tmp_path_factory.mktemp("listing")
    deployment = Deployment(directory)
    deployment.write()
    settings = directory / "server.yaml"
    settings.write_text(settings.read_text().replace("policy: policy.yaml", "policy: policy.json"))
    (directory / "policy.json").write_text(policy())
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


@pytest.fixture(scope="module")
def web(server: Deployment) -> Iterator[AuthServiceStub]:
    leaf = server.example_ca.issue(uris=[WEB])
    credentials = grpc.ssl_channel_credentials(server.server_ca.leaf_pem, leaf.key_pem, leaf.cert_pem)
    with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
        yield AuthServiceStub(channel)


def test_twenty_thousand_rooms_come_in_pages_that_every_client_takes(web: AuthServiceStub) -> None:
    rooms: list[str] = []
    request, pages = pb.ListPermissionsRequest(), 0
    while True:
        page = web.ListPermissions(request)
        pages += 1
        assert page.ByteSize() < 4 * 1024 * 1024
        (entry,) = page.entries
        assert (entry.name, entry.index) == ("consult", 0)
        rooms += [matcher.exact for matcher in entry.rooms]
        if pages == 1:
            assert list(entry.projects) == ["alpha", "beta"]
            assert not entry.roles[0].grants.video.can_publish
        if not page.next_page_token:
            break
        request = pb.ListPermissionsRequest(page_token=page.next_page_token)
    assert rooms == ROOMS
    assert pages == 21


def test_projects_say_for_what_they_may_be_used(web: AuthServiceStub) -> None:
    answer = web.ListProjects(pb.ListProjectsRequest())
    assert [(p.name, p.url, p.issue_tokens, p.verify_tokens, p.is_default) for p in answer.projects] == [
        ("alpha", "wss://alpha.example.org", True, True, False),
        ("beta", "wss://beta.example.org", True, False, False),
    ]


def test_server_info_has_the_limits_in_force(web: AuthServiceStub) -> None:
    answer = web.GetServerInfo(pb.GetServerInfoRequest())
    assert answer.contract_revision == max(pb.ContractRevision.values())
    assert answer.max_webhook_body_bytes == 1024 * 1024
    assert {method.name for method in answer.methods} >= {"IssueToken", "GetServerInfo"}


def test_another_policy_between_two_pages_ends_the_list(server: Deployment, web: AuthServiceStub) -> None:
    first = web.ListPermissions(pb.ListPermissionsRequest())
    (server.directory / "policy.json").write_text(policy("b"))
    eventually(lambda: web.GetCaller(pb.GetCallerRequest()).policy_revision != first.policy_revision)
    following = pb.ListPermissionsRequest(page_token=first.next_page_token)
    got = refusal(lambda: web.ListPermissions(following))
    assert (got.code, got.reason) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    assert web.ListPermissions(pb.ListPermissionsRequest()).policy_revision != first.policy_revision
