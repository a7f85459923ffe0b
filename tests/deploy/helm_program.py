"""The helm that lints and renders the chart: built once from the Go module beside this file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

MODULE = Path(__file__).parent / "helm"
CACHE = Path(__file__).parents[2] / ".cache" / "helm"
PACKAGE = "helm.sh/helm/v4/cmd/helm"


def binary() -> Path:
    """The program, built when these go.mod and go.sum haven't been yet (some minutes, once). Fails without Go."""
    revision = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()
    target = CACHE / revision[:16] / "helm"
    if target.exists():
        return target
    go = shutil.which("go")
    assert go, "helm is built with Go 1.26 or newer: install it from https://go.dev/dl/"
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"helm.{os.getpid()}")
    command = [go, "build", "-p", "2", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", "-o"]
    subprocess.run([*command, unfinished, PACKAGE], cwd=MODULE, check=True)
    unfinished.replace(target)  # in one step, so that a build that is cut short is never taken for the program
    return target
