from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livekit_auth import AuthClient
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One real server process for all tests that don't change it."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    deployment.write()
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


@pytest.fixture(scope="session")
def web(server: Deployment) -> AuthServiceStub:
    return server.caller("spiffe://example.org/web")


@pytest.fixture(scope="session")
def admin(server: Deployment) -> AuthServiceStub:
    return server.caller("spiffe://example.org/admin")


@pytest.fixture(scope="session")
def hooks(server: Deployment) -> AuthServiceStub:
    return server.caller("spiffe://example.org/hooks")


@pytest.fixture(scope="session")
def stranger(server: Deployment) -> AuthServiceStub:
    """A caller with a good certificate that the policy doesn't list."""
    return server.caller("spiffe://example.org/stranger")


@pytest.fixture
def client_of(server: Deployment, tmp_path: Path) -> Callable[..., AuthClient]:
    """Makes a client with a certificate for a SPIFFE ID."""

    def client_of(uri: str, port: int | None = None) -> AuthClient:
        return server.client(uri, tmp_path, port=port, timeout=5 if port is None else 1)

    return client_of


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment of the test's own, written and not started."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    deployment.write()
    yield deployment
    if deployment.process is not None:
        deployment.stop()
