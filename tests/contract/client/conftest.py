import functools

import pytest

import livekit_auth
import livekit_auth.sync
from support.fake_auth_server import FakeAuthService, serving
from support.pki import Authority


@pytest.fixture(scope="session")
def authority():
    return Authority.create()


@pytest.fixture
def service():
    return FakeAuthService()


@pytest.fixture
async def address(service, authority):
    async with serving(service, authority) as address:
        yield address


@pytest.fixture
def files(authority, tmp_path):
    """The paths of a CA file, a client certificate and its key, by argument name of the client."""
    leaf = authority.issue(uris=["spiffe://example.org/web"])
    cert, key = leaf.write(tmp_path, "client")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.leaf_pem)
    return {"ca": ca, "cert": cert, "key": key}


@pytest.fixture
async def client(address, files):
    async with livekit_auth.AuthClient(address, **files) as client:
        yield client


@pytest.fixture
def sync_client(address, files):
    with livekit_auth.sync.AuthClient(address, **files) as client:
        yield client


@pytest.fixture
def environment(address, files, monkeypatch):
    """Sets the environment variables to the fake server."""
    monkeypatch.setenv("LIVEKIT_AUTH_ADDRESS", address)
    for name, path in files.items():
        monkeypatch.setenv(f"LIVEKIT_AUTH_{name.upper()}", str(path))
    return functools.partial(monkeypatch.setenv)
