"""`serve` in a terminal shows its summary; with --json, and anywhere else, the log line."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.deployment import START_TIMEOUT, Deployment, environment

if TYPE_CHECKING:
    from pathlib import Path


def started(deployment: Deployment, *options: str, until: bytes) -> str:
    """What a server writes to a terminal until this text; then it is ended, and must end well."""
    ours, theirs = pty.openpty()
    command = [*deployment.command("serve"), *options]
    process = subprocess.Popen(command, stderr=theirs, env={**environment(), "TERM": "dumb"})
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + START_TIMEOUT
    try:
        while until not in seen and time.monotonic() < deadline:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen.decode()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path)
    made.write("audit: {path: audit}\n")
    settings = tmp_path / "server.yaml"
    settings.write_text(settings.read_text().replace("format: json", "format: auto"))
    return made


def test_a_terminal_gets_the_summary_in_place_of_the_line(deployment: Deployment) -> None:
    shown = started(deployment, until=b"Ctrl-C drains and stops.")
    assert re.search(r"address +127\.0\.0\.1:\d+", shown)
    assert re.search(r"policy +[0-9a-f]{16}, \d callers", shown)
    assert re.search(r"project +alpha, wss://alpha\.example\.org", shown)
    assert f"{deployment.directory}/audit" in shown
    assert "policy_revision" not in shown


def test_json_stays_json_on_a_terminal(deployment: Deployment) -> None:
    shown = started(deployment, "--json", until=b'"event":"serving"')
    assert "Ctrl-C" not in shown
    assert all(line.startswith("{") for line in shown.splitlines())
