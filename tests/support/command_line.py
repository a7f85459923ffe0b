"""livekit-auth-server's command line, run in the test's own process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    """Runs a command and returns its exit code. What it wrote is for `capfd`."""
    monkeypatch.setattr(sys, "argv", ["livekit-auth-server", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
