"""A real LiveKit server and livekit-auth server for the whole run, and a client for each caller of policy.yaml."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from e2e import secrecy
from e2e.deployment import Deployment
from e2e.livekit_server import GoMissingError, Ports, binary, livekit_server
from e2e.processes import interruptible
from e2e.webhook_listener import WebhookListener, webhook_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from livekit_auth import AuthClient

POLICY = Path(__file__).with_name("policy.yaml")


@dataclass(frozen=True, slots=True)
class Callers:
    """A client for each caller that policy.yaml lists; it says what each may do."""

    web: AuthClient
    booking: AuthClient
    quality: AuthClient
    moderation: AuthClient
    operations: AuthClient
    agents: AuthClient
    webhooks: AuthClient
    archive: AuthClient
    media: AuthClient
    gateway: AuthClient


@pytest.fixture(scope="session")
def livekit_program() -> Path:
    """The server's binary. Without Go there is none: tests are skipped, but in CI that is a failure."""
    try:
        return binary()
    except GoMissingError as error:
        missing = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def listener() -> AsyncIterator[WebhookListener]:
    """Receives every webhook of the run."""
    async with webhook_listener() as listening:
        yield listening


@pytest.fixture(scope="session")
def deployment(
    livekit_program: Path, listener: WebhookListener, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Both servers, running."""
    directory, ports = tmp_path_factory.mktemp("e2e"), Ports.free()
    deployment = Deployment.create(directory / "deployment", ports.url)
    deployment.add_callers(
        "e2e.example.org", "booking", "quality", "moderation", "operations", "archive", "gateway", "media"
    )
    shutil.copy(POLICY, deployment.directory)
    livekit = livekit_server(livekit_program, directory, ports, deployment, listener.url)
    with interruptible(), deployment.serve(), livekit:
        yield deployment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def callers(deployment: Deployment) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as stack:
        clients = {f.name: await stack.enter_async_context(deployment.client(f.name)) for f in fields(Callers)}
        yield Callers(**clients)


@pytest.fixture
def room() -> str:
    """A room of the test's own."""
    return f"consult-{secrets.token_hex(4)}"


def pytest_configure() -> None:
    secrecy.redact_logs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps tokens and secrets out of what a failing test prints: arguments, messages, captured output."""
    report = yield
    if report.failed and (clean := secrecy.redacted(str(report.longrepr))) != str(report.longrepr):
        report.longrepr = clean
    report.sections = [(title, secrecy.redacted(text)) for title, text in report.sections]
    return report
