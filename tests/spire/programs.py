"""The real spire-server and spire-agent: built once from the Go module in go/, cached between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = Path(__file__).with_name("go")
CACHE = Path(__file__).parents[2] / ".cache" / "spire"
PACKAGES = tuple(f"github.com/spiffe/spire/cmd/spire-{name}" for name in ("server", "agent"))


class GoMissingError(Exception):
    """There is neither a Go tool chain nor binaries that were built before."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The two binaries."""

    server: Path
    agent: Path


def programs(announce: Callable[[], None] = lambda: None) -> Programs:
    """The binaries, built when this version of go.mod and go.sum hasn't been yet (many minutes, once).

    `announce` is called before a build. Raises GoMissingError, and ProcessError when the build fails.
    """
    revision = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()
    folder = CACHE / revision[:16]
    found = Programs(folder / "spire-server", folder / "spire-agent")
    if folder.exists():
        return found
    go, compiler = shutil.which("go"), shutil.which("cc") or shutil.which("gcc")
    if go is None or compiler is None:  # its SQLite is C
        raise GoMissingError(
            "SPIRE is built with Go 1.25 or newer and a C compiler: install https://go.dev/dl/ and gcc"
        )
    announce()
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    options = ["-mod=readonly", "-buildvcs=false", "-p", "2", "-ldflags", "-s -w"]
    run("building SPIRE", ["nice", "-n", "10", go, "build", *options, "-o", f"{unfinished}/", *PACKAGES], cwd=MODULE)
    unfinished.rename(folder)  # in one step, so that a build that is cut short is never taken for the programs
    return found


if __name__ == "__main__":
    print(programs(lambda: print("Building spire-server and spire-agent, once …", flush=True)).server.parent)
