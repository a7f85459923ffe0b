"""The Python client with a real server process: what the one says of the other."""

from importlib.metadata import version

import pytest

from livekit_auth import Denied, NotFound, ServerTooOld, VerificationFailed
from livekit_auth._messages.needed_server import NEEDS, REVISION
from livekit_auth.v1.grants_pb2 import Grants

WEB, ADMIN = "spiffe://example.org/web", "spiffe://example.org/admin"
UNKNOWN = b"\xba\x3e\x01x"  # field 999, of length 1


async def test_client_speaks_the_servers_revision(client_of):
    async with client_of(WEB) as client:
        info = await client.require_server()
    assert (info.version, info.contract_revision) == (version("livekit-auth-server"), REVISION)
    assert info.methods["IssueToken"] == 1024 * 1024


async def test_caller_sees_its_permissions_and_projects(client_of):
    async with client_of(WEB) as client:
        caller = await client.get_caller()
        [entry] = await client.list_permissions()
        projects = await client.list_projects()
    assert (caller.workload_id, caller.listed) == (WEB, True)
    assert (entry.name, entry.projects, [str(room) for room in entry.rooms]) == (
        "consult",
        ("alpha",),
        ["prefix:consult-"],
    )
    assert [(role.name, role.grants.video.room_join) for role in entry.roles] == [("guest", True)]
    assert [(project.name, project.issue_tokens, project.is_default) for project in projects] == [("alpha", True, True)]


async def test_unlisted_caller_sees_only_its_identity(client_of):
    async with client_of("spiffe://example.org/stranger") as client:
        assert not (await client.get_caller()).listed
        with pytest.raises(Denied) as caught:
            await client.list_permissions()
        assert caught.value.reason == "CALLER_NOT_LISTED"
        assert (await client.require_server()).contract_revision == REVISION


async def test_denied_caller_learns_why_and_others_do_not(client_of):
    async with client_of(WEB) as client, client_of(ADMIN) as other:
        with pytest.raises(Denied) as caught:
            await client.issue_token(room="board-1", identity="user-1", role="guest", request_reason="TICKET-1")
        decision = await client.get_decision(caught.value.decision_id)
        with pytest.raises(NotFound):
            await client.get_decision("0" * 16)
        with pytest.raises(NotFound):
            await other.get_decision(caught.value.decision_id)
    assert (decision.reason, decision.room, decision.request_reason) == ("ROOM_NOT_PERMITTED", "board-1", "TICKET-1")
    [shortfall] = decision.shortfalls
    assert (shortfall.entry, [lack.reason for lack in shortfall.lacks]) == ("consult", ["ROOM_NOT_PERMITTED"])


async def test_field_that_the_server_does_not_know_is_named(client_of):
    grants = Grants.FromString(UNKNOWN)
    async with client_of(WEB) as client:
        with pytest.raises(ServerTooOld) as caught:
            await client.issue_token(room="consult-1", identity="user-1", grants=grants)
    assert caught.value.message.endswith(f"doesn't know the field number 999 in grants of IssueTokenRequest; {NEEDS}")
    assert caught.value.metadata["server_version"] == version("livekit-auth-server")


async def test_token_that_is_not_genuine_is_a_failed_verification(client_of):
    async with client_of(ADMIN) as client:
        with pytest.raises(VerificationFailed) as caught:
            await client.verify_token("nonsense")
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "TOKEN_MALFORMED")


@pytest.mark.slow
async def test_permissions_over_many_pages_are_whole(deployment, tmp_path):
    rooms = ", ".join(f"{{exact: room-{number:05}}}" for number in range(5_000))
    (deployment.directory / "policy.yaml").write_text(f"""\
version: 1
roles: {{guest: {{video: {{room_join: true}}}}}}
callers:
  - id: {WEB}
    allow:
      - {{name: many, projects: [alpha], roles: [guest], rooms: [{rooms}], identities: any}}
      - {{name: last, projects: [beta], roles: [guest], rooms: any, identities: any}}
""")
    deployment.start()
    async with deployment.client(WEB, tmp_path) as client:
        many, last = await client.list_permissions()
        projects = await client.list_projects()
    assert [room.value for room in many.rooms] == [f"room-{number:05}" for number in range(5_000)]
    assert (many.projects, [role.name for role in many.roles]) == (("alpha",), ["guest"])
    assert (last.index, [str(room) for room in last.rooms]) == (1, ["any"])
    assert [project.name for project in projects] == ["alpha", "beta"]
