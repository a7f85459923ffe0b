"""Every released client works with today's server, and today's client with every released server."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.deployment import Deployment, environment
from support.signing import event, webhook_token

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEELS = Path(__file__).parent / "wheels"
RELEASES = sorted({wheel.name.split("-")[1] for wheel in WHEELS.glob("*.whl")})


@pytest.fixture(params=RELEASES or ["none"])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with both packages of a release."""
    assert RELEASES, "no release is kept in tests/compat/wheels; run: make proto-release"
    code = tmp_path / "released"
    for wheel in WHEELS.glob(f"*-{request.param}-*.whl"):
        zipfile.ZipFile(wheel).extractall(code)
    return code


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    directory = tmp_path / "deployment"
    directory.mkdir()
    deployment = Deployment(directory)
    deployment.write()
    for name in ("web", "hooks"):
        deployment.example_ca.issue(uris=[f"spiffe://example.org/{name}"]).write(directory, name)
    (directory / "body").write_bytes(event())
    (directory / "authorization").write_text(webhook_token(event()))
    yield deployment
    if deployment.process is not None:
        deployment.stop()


def run_client(deployment: Deployment, code: Path | None) -> str:
    program = [sys.executable, str(Path(__file__).with_name("main_job.py")), str(deployment.directory)]
    address = f"localhost:{deployment.port}"
    done = subprocess.run(
        [*program, address], env=environment(code), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_released_client_works_with_todays_server(deployment: Deployment, released: Path) -> None:
    deployment.start()
    assert f"done with {released}" in run_client(deployment, released)


def test_todays_client_works_with_a_released_server(deployment: Deployment, released: Path) -> None:
    deployment.start(released)
    assert str(released) not in run_client(deployment, None)
