"""The generated client for threads: where it could differ from the client for asyncio."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from livekit_auth import Denied, TokenRequest, Unavailable
from livekit_auth._connection import certificates
from livekit_auth.sync import TokenSource
from livekit_auth.v1.permissions_pb2 import AllowEntry, Matcher
from support.fake_auth_server import refusal


def in_threads(count, call):
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


async def test_one_client_serves_many_threads_over_one_connection(sync_client, service):
    await asyncio.to_thread(in_threads, 8, lambda: sync_client.issue_token(role="guest"))
    assert len(service.requests) == 8
    assert len(service.connections) == 1


async def test_renewal_under_load_breaks_no_call(sync_client, service, files, authority, monkeypatch):
    monkeypatch.setattr(certificates, "POLL_SECONDS", 0.0)
    renewed = authority.issue(uris=["spiffe://example.org/web"])
    started = threading.Barrier(5)

    def calls():
        started.wait()
        return [sync_client.get_caller() for _ in range(25)]

    def renew():
        started.wait()
        files["cert"].write_bytes(renewed.cert_pem)
        files["key"].write_bytes(renewed.key_pem)

    renewing = asyncio.to_thread(renew)
    await asyncio.gather(renewing, *(asyncio.to_thread(calls) for _ in range(4)))
    await asyncio.to_thread(sync_client.get_caller)
    assert len(service.requests) == 101
    assert service.peers[-1] == renewed.leaf_pem
    assert len(service.connections) == 2


async def test_sync_client_retries_only_transient_errors(sync_client, service):
    service.script.extend([refusal("UNAVAILABLE"), refusal("PERMISSION_DENIED", "ROOM_NOT_PERMITTED")])
    with pytest.raises(Denied) as caught:
        await asyncio.to_thread(sync_client.issue_token, role="guest")
    assert caught.value.reason == "ROOM_NOT_PERMITTED"
    assert len(service.requests) == 2


async def test_sync_client_stops_at_the_deadline(sync_client, service):
    service.script.append(30.0)
    with pytest.raises(Unavailable) as caught:
        await asyncio.to_thread(sync_client.issue_token, role="guest", timeout=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_sync_client_reads_all_pages(sync_client, service):
    service.entries = [AllowEntry(name="web", rooms=[Matcher(exact=room)]) for room in "abc"]
    [entry] = await asyncio.to_thread(sync_client.list_permissions)
    assert [room.value for room in entry.rooms] == ["a", "b", "c"]
    assert len(service.requests) == 3


async def test_threads_with_one_token_source_share_one_request(sync_client, service):
    service.script.append(0.2)
    source = TokenSource(sync_client, TokenRequest(role="guest"))
    tokens = await asyncio.to_thread(in_threads, 6, source.token)
    assert len(service.requests) == 1
    assert all(token is tokens[0] for token in tokens)


async def test_closed_sync_client_refuses_calls(sync_client):
    await asyncio.to_thread(sync_client.get_caller)
    sync_client.close()
    with pytest.raises(RuntimeError, match="closed"):
        sync_client.get_caller()
