"""No connection: both clients identify each cause and say what to do."""

import asyncio
import contextlib
import datetime as dt

import pytest

import livekit_auth
import livekit_auth.sync
from livekit_auth import NotConnected, Unavailable
from livekit_auth._connection import diagnosis
from livekit_auth._connection.certificates import Certificates
from livekit_auth._connection.config import Config
from support.fake_auth_server import refusal, serving
from support.pki import NOW, Authority
from support.ports import free_port

pytestmark = pytest.mark.slow

TIMEOUT = 1.5  # seconds; the cause must be found within a call


async def errors(address, files):
    """The errors that the two clients raise."""
    by_threads = livekit_auth.sync.AuthClient(address, **files)
    async with livekit_auth.AuthClient(address, **files) as client:
        calls = client.get_caller(timeout=TIMEOUT), asyncio.to_thread(by_threads.get_caller, timeout=TIMEOUT)
        raised = await asyncio.gather(*calls, return_exceptions=True)
    by_threads.close()
    return raised


async def causes(address, files, *texts):
    raised = await errors(address, files)
    assert [type(error) for error in raised] == [NotConnected] * 2
    assert all(text in str(error) for error in raised for text in texts), [str(error) for error in raised]
    assert {(error.code, error.reason) for error in raised} == {("UNAVAILABLE", "")}
    return {error.cause for error in raised}


def looked_up(address, files):
    """The arguments of `look` for a server."""
    certificates = Certificates(*(files[name].read_bytes() for name in ("ca", "cert", "key")))
    return Config.resolve(address, **files), certificates


@pytest.fixture
def written(tmp_path, files):
    """The client's files with another certificate."""

    def written(credential):
        cert, key = credential.write(tmp_path, "other")
        return {**files, "cert": cert, "key": key}

    return written


@contextlib.asynccontextmanager
async def listening(connected):
    """A different service at a port."""
    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


async def test_server_that_is_not_running_is_refused(files):
    address = f"localhost:{free_port()}"
    assert await causes(address, files, f"nothing listens at {address}", "check that the server is running") == {
        "refused"
    }


async def test_unknown_host_name_is_name_not_found(files):
    assert await causes("auth.invalid:443", files, "auth.invalid doesn't resolve") == {"name_not_found"}


async def test_server_of_another_ca_is_not_trusted(service, files):
    async with serving(service, Authority.create("another CA")) as address:
        assert await causes(address, files, "isn't signed by a CA in", str(files["ca"])) == {"server_not_trusted"}
    assert service.requests == []


async def test_server_with_another_name_is_wrong_host_name(address, service, files):
    by_address = address.replace("localhost", "127.0.0.1")
    assert await causes(by_address, files, "isn't valid for 127.0.0.1") == {"wrong_host_name"}
    assert service.requests == []


async def test_expired_client_certificate_is_certificate_expired(address, files, written, authority):
    end = NOW - dt.timedelta(hours=1)
    expired = authority.issue(uris=["spiffe://example.org/web"], not_before=end - dt.timedelta(days=1), not_after=end)
    files = written(expired)
    told = f"{files['cert']} expired at {end:%Y-%m-%d %H:%M:%SZ}: renew it"
    assert await causes(address, files, told) == {"certificate_expired"}


async def test_refused_client_certificate_is_certificate_refused(address, service, files, written):
    files = written(Authority.create("another CA").issue(uris=["spiffe://example.org/web"]))
    assert await causes(address, files, "the server refused the client certificate", str(files["cert"])) == {
        "certificate_refused"
    }
    assert service.requests == []


async def test_other_service_at_the_port_is_not_tls(files):
    async def http(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(http) as address:
        assert await causes(address, files, "doesn't speak TLS") == {"not_tls"}


async def test_silent_server_is_unreachable(files, monkeypatch):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    monkeypatch.setattr(diagnosis, "STEP_SECONDS", 0.3)
    async with listening(silent) as address:
        finding = await asyncio.to_thread(diagnosis.look, *looked_up(address, files))
    assert finding == ("unreachable", f"the server at {address} accepted the connection and sent nothing")


async def test_proxy_without_a_backend_is_not_a_lost_connection(client, service):
    service.script.extend([refusal("UNAVAILABLE", message="no healthy upstream")] * 100)
    with pytest.raises(Unavailable, match="no healthy upstream") as caught:
        await client.get_caller(timeout=1.0)
    assert type(caught.value) is Unavailable


async def test_many_failing_calls_make_one_test_connection(files, monkeypatch):
    made = []
    monkeypatch.setattr(diagnosis, "look", lambda *_: made.append(1))
    async with livekit_auth.AuthClient(f"localhost:{free_port()}", **files) as client:
        await asyncio.gather(*(client.get_caller(timeout=1.0) for _ in range(20)), return_exceptions=True)
    assert len(made) == 1


async def test_proxy_in_the_environment_is_not_bypassed(files, monkeypatch):
    made = []
    monkeypatch.setattr(diagnosis, "look", lambda *_: made.append(1))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with livekit_auth.AuthClient(f"localhost:{free_port()}", **files) as client:
        with pytest.raises(Unavailable):
            await client.get_caller(timeout=0.5)
    assert made == []


async def test_responding_server_gives_no_finding(address, files):
    assert await asyncio.to_thread(diagnosis.look, *looked_up(address, files)) is None
