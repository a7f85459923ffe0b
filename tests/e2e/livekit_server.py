"""A real LiveKit server: built once from the Go module beside this file, run on the loopback interface only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from e2e.processes import LOOPBACK, free_port, run, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.deployment import ApiKey

MODULE = Path(__file__).parent / "livekit"
CACHE = Path(__file__).parents[2] / ".cache" / "livekit-server"
PACKAGE = "github.com/livekit/livekit-server/cmd/server"


class GoMissingError(Exception):
    """There is neither a Go tool chain nor a binary that was built before."""


def binary(announce: Callable[[], None] = lambda: None) -> Path:
    """The server's binary, built when this version of go.mod and go.sum hasn't been yet (a minute or two, once).

    `announce` is called before a build. Raises GoMissingError, and ProcessError when the build fails.
    """
    target = _target()
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise GoMissingError("a real LiveKit server is built with Go 1.23 or newer: install it from https://go.dev/dl/")
    announce()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    command = [go, "build", "-mod=readonly", "-buildvcs=false", "-o"]
    run("building livekit-server", [*command, unfinished, PACKAGE], cwd=MODULE)
    unfinished.replace(target)  # in one step, so that a build that is cut short is never taken for the server
    return target


def _target() -> Path:
    """Where the binary of these go.mod and go.sum belongs."""
    revision = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()
    return CACHE / revision[:16] / "livekit-server"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens: `signal` is TCP, `media` UDP."""

    signal: int
    media: int

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody uses now."""
        return cls(free_port(), free_port(socket.SOCK_DGRAM))

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"ws://{LOOPBACK}:{self.signal}"


class Keys(Protocol):
    """A key and the file that has it with its secret: a deployment's, or a test's own."""

    @property
    def key_file(self) -> Path:
        """In the format that LiveKit reads."""

    @property
    def key(self) -> ApiKey:
        """The key that signs webhooks."""


@contextmanager
def livekit_server(program: Path, directory: Path, ports: Ports, keys: Keys, webhook_url: str) -> Iterator[None]:
    """Runs a server with these keys until the block ends."""
    config = directory / "livekit.yaml"
    config.write_text(json.dumps(_config(ports, keys, webhook_url), indent=2))  # JSON is YAML
    log = directory / "livekit.log"
    with running("livekit-server", [program, "--config", config], ports.signal, log):
        yield


def _config(ports: Ports, keys: Keys, webhook_url: str) -> dict[str, object]:
    """Media goes over UDP alone: LiveKit would open its TCP media port on every interface."""
    return {
        "port": ports.signal,
        "bind_addresses": [LOOPBACK],
        "key_file": str(keys.key_file),
        "rtc": {
            "node_ip": LOOPBACK,
            "enable_loopback_candidate": True,
            "ips": {"includes": [f"{LOOPBACK}/32"]},
            "udp_port": ports.media,
            "tcp_port": 0,
        },
        "webhook": {"api_key": keys.key.id, "urls": [webhook_url]},
        "logging": {"level": "info", "json": True},
    }
