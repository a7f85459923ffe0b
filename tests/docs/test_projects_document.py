"""docs/projects.md: what it has people run does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from livekit_auth_server.keys.keys_file import keys_from_file

TEXT = (Path(__file__).resolve().parents[2] / "docs/projects.md").read_text()
LK_CONFIG = """\
default_project: demo
projects:
  - name: other
    project_id: p_1
    url: wss://other
    api_key: APIother
    api_secret: other-secret-0123456789abcdef0123
  - name: demo
    project_id: ""
    url: ws://localhost:7880
    api_key: APIdemo
    api_secret: demo-secret-0123456789abcdef01234
device_name: laptop
"""


def script(beginning: str) -> str:
    found = re.search(rf"```sh\n\s*({re.escape(beginning)}.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1].replace("python3", sys.executable)


def shell(text: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home)}
    return subprocess.run(
        ["bash", "-c", text], cwd=home, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".livekit").mkdir()
    (tmp_path / ".livekit" / "cli-config.yaml").write_text(LK_CONFIG)
    return tmp_path


def test_a_project_that_lk_knows_becomes_a_key_file(home: Path) -> None:
    done = shell(script("umask 077 && python3"), home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (key,) = keys_from_file(home / "keys.yaml")  # which refuses files that others can read
    assert key.id == "APIdemo"


def test_a_project_that_lk_doesnt_know_makes_no_key_file_that_loads(home: Path) -> None:
    done = shell(script("umask 077 && python3").replace(" demo ", " nosuch "), home)
    assert done.returncode == 1
    assert "secret-0123" not in done.stderr
    assert (home / "keys.yaml").read_text() == ""


def test_a_clouds_key_becomes_a_key_file(home: Path) -> None:
    (home / "secret.txt").write_text("cloud-secret-0123456789abcdef012\n")
    done = shell(script("umask 077 && printf"), home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [key.id for key in keys_from_file(home / "cloud-keys.yaml")] == ["APIxxxxxxxxxxxx"]
