"""Renewal of certificate files while the client runs."""

import asyncio
import os

import psutil
import pytest

from livekit_auth import AuthClient
from livekit_auth._connection import certificates


@pytest.fixture(autouse=True)
def look_always(monkeypatch):
    """Checks the files at each call, so that no test waits a second."""
    monkeypatch.setattr(certificates, "POLL_SECONDS", 0.0)


@pytest.fixture
def renewed(authority):
    return authority.issue(uris=["spiffe://example.org/web"])


async def test_renewed_certificate_is_used_from_the_next_call(client, service, files, renewed):
    await client.get_caller()
    files["cert"].write_bytes(renewed.cert_pem)
    files["key"].write_bytes(renewed.key_pem)
    await client.get_caller()
    assert service.peers[0] != service.peers[1] == renewed.leaf_pem
    assert len(service.connections) == 2


def connections_to(address):
    port = int(address.split(":")[1])
    open_now = psutil.Process().net_connections("tcp")
    return [c for c in open_now if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED]


@pytest.mark.parametrize("busy", [False, True])
async def test_connection_before_a_renewal_is_closed(client, service, address, files, renewed, busy):  # noqa: PLR0917
    service.script.append(0.1 if busy else 0.0)
    first = asyncio.create_task(client.get_caller())
    await (service.called.wait() if busy else first)
    held = client._connection._link.channel  # so that the garbage collector doesn't close it
    files["cert"].write_bytes(renewed.cert_pem)
    files["key"].write_bytes(renewed.key_pem)
    await client.get_caller()
    await first
    async with asyncio.timeout(2):
        while len(connections_to(address)) != 1:  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)
    assert held is not client._connection._link.channel


async def test_swapped_link_is_detected(authority, address, service, tmp_path):
    leaves = {version: authority.issue(uris=["spiffe://example.org/web"]) for version in ("v1", "v2")}
    for version, leaf in leaves.items():
        (tmp_path / version).mkdir()
        leaf.write(tmp_path / version, "tls")
    link = tmp_path / "current"
    link.symlink_to("v1")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.leaf_pem)
    async with AuthClient(address, ca=ca, cert=link / "tls.pem", key=link / "tls.key") as client:
        await client.get_caller()
        (tmp_path / "next").symlink_to("v2")
        os.replace(tmp_path / "next", link)  # noqa: PTH105 - as the kubelet does
        await client.get_caller()
    assert service.peers == [leaves["v1"].leaf_pem, leaves["v2"].leaf_pem]


async def test_half_written_renewal_keeps_the_old_certificate(client, service, files, renewed, caplog):
    await client.get_caller()
    files["cert"].write_bytes(renewed.cert_pem)  # the key comes later
    await client.get_caller()
    assert service.peers[0] == service.peers[1]
    assert len(service.connections) == 1
    assert "keeping the previous ones" in caplog.text
    files["key"].write_bytes(renewed.key_pem)
    await client.get_caller()
    assert service.peers[2] == renewed.leaf_pem


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nMIIB"])
async def test_missing_or_broken_file_keeps_the_old_certificate(client, service, files, name, content):
    await client.get_caller()
    if content is None:
        files[name].unlink()
    else:
        files[name].write_bytes(content)
    await client.get_caller()
    assert len(service.connections) == 1


async def test_unchanged_files_keep_the_connection(client, service):
    for _ in range(3):
        await client.get_caller()
    assert len(service.connections) == 1


async def test_call_in_flight_survives_a_renewal(client, service, files, renewed):
    service.script.append(0.5)
    slow = asyncio.create_task(client.issue_token(role="guest"))
    await service.called.wait()
    files["cert"].write_bytes(renewed.cert_pem)
    files["key"].write_bytes(renewed.key_pem)
    await client.get_caller()
    assert not slow.done()
    assert (await slow).decision_id == "dec-1"
    assert len(service.requests) == 2


async def test_call_in_flight_survives_closing_the_client(client, service):
    service.script.append(0.3)
    slow = asyncio.create_task(client.issue_token(role="guest"))
    await service.called.wait()
    await client.close()
    assert (await slow).decision_id == "dec-1"


async def test_one_file_may_contain_certificate_ca_and_key(authority, address, service, files, renewed):
    """As Vault Agent writes it, so that certificate and key always match."""
    files["cert"].write_bytes(renewed.leaf_pem + authority.leaf_pem + renewed.key_pem)
    async with AuthClient(address, ca=files["ca"], cert=files["cert"], key=files["cert"]) as client:
        await client.get_caller()
    assert service.peers == [renewed.leaf_pem]
