"""What each method sends and returns, over real mutual TLS."""

import hashlib
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from livekit_auth import (
    AuthClient,
    Denied,
    InvalidRequest,
    IssuedToken,
    NotFound,
    ServerError,
    ServerTooOld,
    TokenRequest,
    Unavailable,
    VerificationFailed,
)
from livekit_auth.v1.auth_service_pb2 import IssueTokenRequest
from livekit_auth.v1.grants_pb2 import Grants, VideoGrant
from livekit_auth.v1.permissions_pb2 import AllowEntry, Matcher
from livekit_auth.v1.room_config_pb2 import RoomConfig
from support.fake_auth_server import ISSUED_AT, TOKEN, refusal


async def test_issue_token_sends_all_fields_and_returns_the_token(client, service):
    issued = await client.issue_token(
        room="consult-1",
        identity="ada",
        role="guest",
        project="default",
        name="Ada",
        metadata="m",
        attributes={"a": "b"},
        ttl=timedelta(minutes=5),
        kind="sip",
        room_config=RoomConfig(max_participants=2),
        room_preset="small",
        request_reason="TICKET-1",
    )
    expected = IssueTokenRequest(
        room="consult-1",
        identity="ada",
        role="guest",
        project="default",
        name="Ada",
        metadata="m",
        attributes={"a": "b"},
        kind="PARTICIPANT_KIND_SIP",
        room_config=RoomConfig(max_participants=2),
        room_preset="small",
        request_reason="TICKET-1",
    )
    expected.ttl.seconds = 300
    assert service.requests == [expected]
    assert issued.token == TOKEN
    assert issued.url == "wss://livekit.example.org"
    assert issued.issue_time == datetime.fromtimestamp(ISSUED_AT, UTC)
    assert issued.expire_time - issued.issue_time == timedelta(minutes=5)
    assert issued.grants.video.room_join
    assert (issued.key_id, issued.policy_revision, issued.decision_id) == ("APIkey", "r1", "dec-1")


async def test_explicit_grants_may_replace_a_role(client, service):
    grants = Grants(video=VideoGrant(room_join=True, can_publish=False))
    await client.issue_token(room="r", identity="i", grants=grants)
    assert service.requests[0].WhichOneof("access") == "grants"
    assert service.requests[0].grants == grants


async def test_validate_only_returns_no_token(client):
    assert (await client.issue_token(role="guest", validate_only=True)).token == ""


async def test_batch_returns_tokens_and_errors_in_request_order(client):
    results = await client.issue_tokens([TokenRequest(role=role) for role in ("guest", "admin", "guest")])
    assert [type(result) for result in results] == [IssuedToken, Denied, IssuedToken]
    assert results[1].decision_id == "dec-2"


async def test_unknown_batch_outcome_is_an_error(client):
    [result] = await client.issue_tokens([TokenRequest(role="from-the-future")])
    assert isinstance(result, ServerError)


async def test_empty_batch_makes_no_call(client, service):
    assert await client.issue_tokens([]) == []
    assert service.requests == []


async def test_verified_webhook_has_the_summary_and_the_callers_bytes(client, service):
    event = await client.verify_webhook(b'{"event": "x"}', "header.payload.signature", "default")
    assert (event.type, event.event_id, event.room, event.participant_identity) == (
        "participant_joined",
        "EV_1",
        "lobby",
        "ada",
    )
    assert event.create_time == datetime.fromtimestamp(ISSUED_AT, UTC)
    assert event.body_sha256 == hashlib.sha256(b'{"event": "x"}').digest()
    assert service.requests[0].project == "default"


async def test_acknowledged_webhook_is_a_duplicate_next_time(client, service):
    event = await client.verify_webhook(b"{}", "jwt")
    assert (event.duplicate_status, event.is_duplicate) == ("new", False)
    assert await client.ack_webhook(event) == datetime.fromtimestamp(ISSUED_AT + 3600, UTC)
    assert service.requests[1].body_sha256 == hashlib.sha256(b"{}").digest()
    assert (await client.verify_webhook(b"{}", "jwt")).is_duplicate


async def test_acknowledging_an_event_without_an_id_makes_no_call(client, service):
    event = await client.verify_webhook(b"without id", "jwt")
    assert await client.ack_webhook(event) is None
    assert len(service.requests) == 1


async def test_decoded_body_is_refused_before_it_is_sent(client, service):
    with pytest.raises(TypeError, match="raw bytes of the body, not str"):
        await client.verify_webhook("{}", "jwt")
    assert service.requests == []


async def test_forged_webhook_raises_with_its_reason(client, service):
    service.script.append(refusal("INVALID_ARGUMENT", "BODY_ALTERED", "LiveKit signed other bytes"))
    with pytest.raises(VerificationFailed, match="other bytes") as caught:
        await client.verify_webhook(b"{}", "jwt")
    assert caught.value.reason == "BODY_ALTERED"


async def test_verify_token_returns_the_tokens_fields(client):
    verified = await client.verify_token(TOKEN)
    assert (verified.room, verified.identity, verified.kind) == ("lobby", "ada", "")
    assert verified.issue_time is None
    assert verified.room_config is None
    assert verified.expire_time == datetime.fromtimestamp(ISSUED_AT, UTC)


async def test_get_caller_returns_the_identity(client):
    caller = await client.get_caller()
    assert caller.workload_id == "spiffe://example.org/web"
    assert caller.listed
    assert caller.certificate_expire_time == datetime.fromtimestamp(ISSUED_AT, UTC)


async def test_list_permissions_returns_the_policy_entries(client):
    [entry] = await client.list_permissions()
    assert [(role.name, role.grants.video.room_join) for role in entry.roles] == [("guest", True)]
    assert [str(room) for room in entry.rooms] == ["prefix:consult-"]
    assert [str(identity) for identity in entry.identities] == ["any"]
    assert entry.max_ttl == timedelta(hours=1)


def parts(count):
    """An entry of the policy that goes on over so many pages."""
    return [AllowEntry(name="web", rooms=[Matcher(exact=f"room-{number}")]) for number in range(count)]


async def test_list_permissions_reads_all_pages_and_joins_an_entry(client, service):
    service.entries = [*parts(3), AllowEntry(name="other", index=1)]
    entries = await client.list_permissions()
    assert [entry.name for entry in entries] == ["web", "other"]
    assert [str(room) for room in entries[0].rooms] == ["exact:room-0", "exact:room-1", "exact:room-2"]
    assert [request.page_token for request in service.requests] == ["", "1", "2", "3"]


async def test_list_projects_reads_all_pages(client):
    assert [project.name for project in await client.list_projects()] == ["default", "staging"]


CHANGED = refusal("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "the policy has changed")


async def test_list_begins_again_once_when_the_policy_changes(client, service):
    service.entries = parts(2)
    service.script.extend([0.0, CHANGED])
    [entry] = await client.list_permissions()
    assert len(entry.rooms) == 2, "no part is listed twice"
    assert [request.page_token for request in service.requests] == ["", "1", "", "1"]


async def test_list_fails_when_the_policy_changes_twice(client, service):
    service.entries = parts(2)
    service.script.extend([0.0, CHANGED, 0.0, CHANGED])
    with pytest.raises(InvalidRequest) as caught:
        await client.list_permissions()
    assert (caught.value.reason, len(service.requests)) == ("PAGE_TOKEN_INVALID", 4)


async def test_list_does_not_begin_again_after_another_error(client, service):
    service.script.append(refusal("PERMISSION_DENIED", "CALLER_NOT_LISTED"))
    with pytest.raises(Denied):
        await client.list_permissions()
    assert len(service.requests) == 1


async def test_all_pages_share_one_time_limit(client, service):
    service.entries = parts(100)
    service.script.extend([0.05] * 100)
    with pytest.raises(Unavailable):
        await client.list_permissions(timeout=0.5)
    assert len(service.requests) < 12


async def test_endless_list_is_an_invalid_response(client, service, monkeypatch):
    monkeypatch.setattr("livekit_auth._async.client.MAX_PAGES", 3)
    service.entries = parts(4)
    with pytest.raises(ServerError, match="more than 3 pages"):
        await client.list_permissions()
    assert len(service.requests) == 3


async def test_get_decision_explains_a_denial(client, service):
    decision = await client.get_decision("dec-9")
    assert service.requests[0].decision_id == "dec-9"
    assert (decision.decision_id, decision.reason) == ("dec-9", "ROOM_NOT_PERMITTED")
    assert [(lack.reason, lack.message) for lack in decision.shortfalls[0].lacks] == [
        ("ROOM_NOT_PERMITTED", "not this room")
    ]


async def test_decision_that_is_not_there_is_not_found(client, service):
    service.script.append(refusal("NOT_FOUND", "DECISION_NOT_FOUND"))
    with pytest.raises(NotFound):
        await client.get_decision("dec-9")
    assert len(service.requests) == 1


async def test_server_of_this_clients_revision_is_accepted(client):
    info = await client.require_server()
    assert (info.version, info.max_batch_entries) == ("0.2.0", 500)
    assert info == await client.get_server_info()


async def test_server_of_an_earlier_revision_is_refused(client, service):
    service.revision -= 1
    with pytest.raises(ServerTooOld, match="this client needs a server of"):
        await client.require_server()
    await client.get_server_info()


async def test_server_without_a_method_is_too_old_and_asked_once(client, service):
    service.script.append(refusal("UNIMPLEMENTED"))
    with pytest.raises(ServerTooOld, match="method GetServerInfo; this client needs a server of"):
        await client.require_server()
    assert len(service.requests) == 1


async def test_server_without_a_field_is_too_old_and_asked_once(client, service):
    metadata = {"field_path": "", "field_number": "14", "server_version": "0.1.9"}
    service.script.append(refusal("INVALID_ARGUMENT", "FIELD_UNKNOWN", metadata=metadata))
    with pytest.raises(ServerTooOld, match=r"the server 0\.1\.9 doesn't know the field request_reason"):
        await client.issue_token(role="guest", request_reason="TICKET-1")
    assert len(service.requests) == 1


async def test_error_has_the_invalid_fields(client, service):
    service.script.append(refusal("INVALID_ARGUMENT", "REQUEST_INVALID", violations={"ttl": "must be whole seconds"}))
    with pytest.raises(InvalidRequest) as caught:
        await client.issue_token(role="guest", ttl=timedelta(seconds=1.5))
    assert caught.value.violations == (("ttl", "must be whole seconds"),)


async def test_client_sends_its_name_and_version(client, service):
    await client.get_caller()
    assert service.user_agents[0].startswith(f"livekit-auth-python/{version('livekit-auth')} ")


async def test_settings_come_from_the_environment(environment, service):
    async with AuthClient() as client:
        await client.get_caller()
    assert len(service.requests) == 1


async def test_closed_client_refuses_calls(client):
    await client.get_caller()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get_caller()
