"""No connection: each cause is told apart, by both clients, with what to do about it."""

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

TIMEOUT = 1.5  # seconds; the cause has to be found within a call


async def errors(address, files):
    """What the two clients raise."""
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


@pytest.fixture
def written(tmp_path, files):
    """The client's files with another certificate."""

    def written(credential):
        cert, key = credential.write(tmp_path, "other")
        return {**files, "cert": cert, "key": key}

    return written


@contextlib.asynccontextmanager
async def listening(connected):
    """Something at a port that isn't the server."""
    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_does_not_run(files):
    address = f"localhost:{free_port()}"
    assert await causes(address, files, f"nothing listens at {address}", "check that the server runs") == {"refused"}


async def test_a_name_that_is_not_known(files):
    assert await causes("auth.invalid:443", files, "no address is known for auth.invalid") == {"name_not_found"}


async def test_a_server_of_another_ca(service, files):
    async with serving(service, Authority.create("another CA")) as address:
        assert await causes(address, files, "isn't signed by a CA in", str(files["ca"])) == {"server_not_trusted"}
    assert service.requests == []


async def test_a_server_of_another_name(address, service, files):
    by_address = address.replace("localhost", "127.0.0.1")
    assert await causes(by_address, files, "isn't for 127.0.0.1") == {"wrong_host_name"}
    assert service.requests == []


async def test_a_client_certificate_that_has_expired(address, files, written, authority):
    end = NOW - dt.timedelta(hours=1)
    expired = authority.issue(uris=["spiffe://example.org/web"], not_before=end - dt.timedelta(days=1), not_after=end)
    files = written(expired)
    told = f"{files['cert']} expired at {end:%Y-%m-%d %H:%M:%SZ}: renew it"
    assert await causes(address, files, told) == {"certificate_expired"}


async def test_a_client_certificate_that_the_server_refuses(address, service, files, written):
    files = written(Authority.create("another CA").issue(uris=["spiffe://example.org/web"]))
    assert await causes(address, files, "the server refused the client certificate", str(files["cert"])) == {
        "certificate_refused"
    }
    assert service.requests == []


async def test_something_else_at_the_port(files):
    async def http(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(http) as address:
        assert await causes(address, files, "doesn't speak TLS") == {"not_tls"}


async def test_a_proxy_that_has_no_server_behind_it_is_no_lost_connection(client, service):
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


async def test_a_proxy_in_the_environment_is_not_gone_round(files, monkeypatch):
    made = []
    monkeypatch.setattr(diagnosis, "look", lambda *_: made.append(1))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with livekit_auth.AuthClient(f"localhost:{free_port()}", **files) as client:
        with pytest.raises(Unavailable):
            await client.get_caller(timeout=0.5)
    assert made == []


async def test_a_server_that_answers_leaves_nothing_to_find(address, files):
    config = Config.resolve(address, **files)
    certificates = Certificates(*(files[name].read_bytes() for name in ("ca", "cert", "key")))
    assert await asyncio.to_thread(diagnosis.look, config, certificates) is None
