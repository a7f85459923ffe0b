"""Every snippet of the documents runs as pasted, against a deployment of `dev`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.cli import devkit
from support.first_hour import Served
from support.snippets import snippets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ELSEWHERE = ("LiveKitAPI.with_token", "workload_api=")  # blocks that need a LiveKit server or a SPIFFE agent
RUN = [(name, source) for name, source in snippets("python") if not any(mark in source for mark in ELSEWHERE)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A deployment of `dev` that is served, and beside it the files that the documents name."""
    folder = tmp_path_factory.mktemp("snippets")
    devkit.write(folder / "dev", "127.0.0.1:0", "ws://127.0.0.1:7880")
    with Served.start(folder / "dev") as served:
        body, authorization = served.webhook(
            {"event": "participant_joined", "id": "EV_1", "room": {"name": "consult-1"}}
        )
        (folder / "body.json").write_bytes(body)
        (folder / "header.txt").write_text(f"{authorization}\n")
        yield served


@pytest.mark.parametrize(("name", "source"), RUN, ids=[name for name, _ in RUN])
def test_a_python_snippet_runs_as_pasted(served: Served, name: str, source: str) -> None:
    caller = "webhooks" if "verify_webhook(body" in source else "web"
    environment = {**os.environ, **served.environment(caller)}
    script = served.directory.parent / "snippet.py"
    script.write_text(source)
    words = ["--help"] if "cli.run_app" in source else []  # a worker would look for its LiveKit server
    command = [sys.executable, str(script), *words]
    done = subprocess.run(
        command, env=environment, cwd=script.parent, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_five_minute_start_is_as_it_says(tmp_path: Path) -> None:
    """The blocks from the deployment to the added caller, in one shell each; only the port is another."""
    start = [source for name, source in snippets("sh") if name.startswith("docs/start.md")]
    install, ask, look, add = [block for block in start if "grpcurl" not in block]
    make = next(line for line in install.splitlines() if " dev --dir" in line)
    shell(f"{make} --address 127.0.0.1:0", tmp_path)
    with Served.start(tmp_path / "dev") as served:
        port = f"127.0.0.1:{served.port}"
        environment = ask.replace(". venv/bin/activate\n", "").replace("127.0.0.1:7443", port)
        *asked, denied = environment.rstrip().splitlines()
        assert '"participant_token"' not in (done := shell("\n".join(asked), tmp_path))
        assert "spiffe://dev.example.org/web" in done
        exports = "\n".join(line for line in asked if line.startswith("export"))
        said = shell(f"{exports}\n{denied.partition('#')[0]} || test $? = 1", tmp_path)
        decision = re.search(r"decision_id: (\w+)", said)
        assert decision
        found = shell(f"{look.replace('DECISION_ID', decision[1]).rstrip()} || test $? = 1", tmp_path)
        assert found.count(f"decision_id={decision[1]}") == 2  # by tail and by query
        assert "(permitted rooms: prefix consult-)" in found
        assert served.log_has("denied", decision[1])
        *added, whoami = add.rstrip().splitlines()
        shell("\n".join(added), tmp_path)
        served.wait_for("reloaded")
        billing = json.loads(shell(f"{exports}\n{whoami} --json", tmp_path))
        assert (billing["workload_id"], billing["listed"]) == ("spiffe://dev.example.org/billing", True)


def shell(commands: str, folder: Path) -> str:
    """Runs what a document says; gives all that it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
