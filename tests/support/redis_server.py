"""A real redis-server of a test's own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest
from redis import Redis, RedisError

if TYPE_CHECKING:
    from pathlib import Path

START_TIMEOUT = 10


def redis_program() -> str:
    """The path of redis-server. Without one the test is skipped, or fails in CI."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        complaint = "needs redis-server or valkey-server; on Debian: apt-get install redis-server"
        if os.environ.get("CI") == "true":
            pytest.fail(complaint)
        pytest.skip(complaint)
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RedisServer:
    """The process. `options` are more of redis-server's own; nothing is written to disk."""

    directory: Path
    password: str = ""
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        command = [redis_program(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        command += ["--save", "", "--appendonly", "no", *self.options]
        if self.password:
            command += ["--requirepass", self.password]
        with (self.directory / "redis.log").open("ab") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.client() as client:
                    client.ping()
            except (RedisError, OSError):
                time.sleep(0.02)
            else:
                return self
        raise AssertionError((self.directory / "redis.log").read_text())

    def client(self) -> Redis:
        return Redis(port=self.port, password=self.password or None, socket_timeout=5)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.resume()
            self.kill()
