"""LiveKit's own Node worker, installed once from the lock file beside it, behind `livekit-auth agent-proxy`."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from e2e.processes import run

SOURCE = Path(__file__).with_name("node-agent")
CACHE = Path(__file__).parents[2] / ".cache" / "node-agent"
LOCKED = ("package.json", "package-lock.json", ".npmrc")


class NodeMissingError(Exception):
    """There is no Node or no npm."""


def installed() -> Path:
    """The folder with the worker and what it needs (300 MB, once). Raises NodeMissingError, ProcessError."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise NodeMissingError("the Node worker needs Node 20 or newer with npm: install it from https://nodejs.org/")
    revision = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in LOCKED)).hexdigest()[:16]
    target = CACHE / revision
    if not target.exists():
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        unfinished.mkdir(parents=True)
        for name in LOCKED:
            shutil.copy(SOURCE / name, unfinished)
        run("npm ci", [npm, "ci", "--no-progress"], cwd=unfinished)
        unfinished.replace(target)  # in one step, so that an install that is cut short is never taken for one
    shutil.copy(SOURCE / "agent.js", target)
    return target.resolve()  # Node knows a module by its real path
