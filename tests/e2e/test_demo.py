"""The demo for people works, and shows no token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+")


def test_the_demo_succeeds_and_shows_no_token(livekit_program):
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-W", "error", "-m", "e2e.demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not TOKEN.search(done.stdout)
    assert "participant_joined of user-7: livekit-auth confirms that LiveKit signed it" in done.stdout
    assert "ROOM_NOT_PERMITTED" in done.stdout
    assert "LiveKit registers the worker" in done.stdout
