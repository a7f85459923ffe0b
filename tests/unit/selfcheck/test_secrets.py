"""Secrets are exposed to the self-check alone."""

from __future__ import annotations

import re

from support.snippets import ROOT

SERVER = ROOT / "server/livekit_auth_server"


def test_no_other_folder_takes_a_secret_out_of_its_wrapping() -> None:
    users = [path for path in SERVER.rglob("*.py") if re.search(r"\.exposed\(", path.read_text())]
    assert {path.relative_to(SERVER).parts[0] for path in users} == {"selfcheck"}
