"""The README's first block, as pasted, with the pip that this Python ships."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_readme_installs_both_programs_and_makes_a_deployment(tmp_path: Path) -> None:
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "pip install" in block]
    *lines, serve = block.strip().splitlines()
    assert serve.startswith("livekit-auth-server serve --config ./dev/server.yaml")
    for folder in ("server", "clients"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    path = f"{python.parent}:/usr/bin:/bin"  # no program of the environment that runs this
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    script = "\n".join([*lines, "livekit-auth --version", "livekit-auth-server check --config ./dev/server.yaml"])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {"livekit-auth", "livekit-auth-server"} <= {path.name for path in (tmp_path / "venv/bin").iterdir()}
    assert "server.yaml: fine." in done.stdout
