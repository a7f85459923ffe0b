"""Clients and servers of neighbouring versions work together, each as the wheel that users install.

The current tree works with itself, and with every release in both roles.
"""

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

ROOT = Path(__file__).resolve().parents[2]
WHEELS = Path(__file__).with_name("wheels")
CURRENT = "current"
RELEASES = sorted({wheel.name.split("-")[1] for wheel in WHEELS.glob("*.whl")})
PAIRS = [
    (CURRENT, CURRENT),
    *((release, CURRENT) for release in RELEASES),
    *((CURRENT, release) for release in RELEASES),
]


def wheels(version: str, directory: Path) -> list[Path]:
    """The wheels of both packages: those kept from a release, or those built from this tree."""
    if version == CURRENT:
        for package in ("clients/python", "server"):
            build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
            subprocess.run(build, cwd=ROOT / package, check=True, capture_output=True)
        return sorted(directory.glob("*.whl"))
    return sorted(WHEELS.glob(f"*-{version}-*.whl"))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each version, with what its two wheels install."""
    folders = {}
    for version in (CURRENT, *RELEASES):
        folders[version] = tmp_path_factory.mktemp("installed")
        found = wheels(version, tmp_path_factory.mktemp("wheels"))
        assert [wheel.name.split("-")[0] for wheel in found] == ["livekit_auth", "livekit_auth_server"]
        for wheel in found:
            zipfile.ZipFile(wheel).extractall(folders[version])
    return folders


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    deployment.write()
    for name in ("web", "hooks"):
        deployment.example_ca.issue(uris=[f"spiffe://example.org/{name}"]).write(tmp_path, name)
    (tmp_path / "body").write_bytes(event())
    (tmp_path / "authorization").write_text(webhook_token(event()))
    yield deployment
    if deployment.process is not None:
        deployment.stop()


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_a_client_does_its_main_job_with_a_server(
    deployment: Deployment, code: dict[str, Path], client: str, server: str
) -> None:
    deployment.start(code[server])
    program = Path(__file__).with_name("main_job.py")
    command = [sys.executable, str(program), str(deployment.directory), f"localhost:{deployment.port}"]
    done = subprocess.run(
        command, env=environment(code[client]), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"done with {code[client] / 'livekit_auth'}\n"
