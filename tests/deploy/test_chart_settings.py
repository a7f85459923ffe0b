"""What the chart renders is what the server runs on: its settings, where its volume puts the files."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from deploy.chart import VARIANTS, Rendered
from deploy.objects import SECRET, Objects
from livekit_auth_server.config.settings import load_settings
from support.deployment import environment

if TYPE_CHECKING:
    from pathlib import Path

NO_FILES = {"spire"}  # its certificate comes from an agent


@pytest.fixture(scope="module")
def objects() -> Objects:
    return Objects()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_server_knows_every_setting(variant: str, objects: Objects, tmp_path: Path) -> None:
    Rendered.variant(variant).mount(tmp_path, objects.all())
    assert load_settings(tmp_path / "server.yaml")


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in NO_FILES])
def test_the_server_finds_every_file_where_the_volume_puts_it(variant: str, objects: Objects, tmp_path: Path) -> None:
    Rendered.variant(variant).mount(tmp_path, objects.all())
    settings = str(tmp_path / "server.yaml")
    command = [sys.executable, "-m", "livekit_auth_server.cli", "check", "--config", settings, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["callers"], found["projects"]) == (1, {"default": {"sign": 1, "verify": 1}})
    assert found["authorities"]["example.org"] == 1
    assert found["denied_workloads"] == (1 if variant == "cert-manager" else 0)
    assert SECRET not in done.stdout + done.stderr
