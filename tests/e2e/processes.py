"""Programs that a test starts and ends: each by its own process id, on loopback ports that were free a moment ago."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from e2e.secrecy import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0


class ProcessError(Exception):
    """A program didn't do what it was started for; the message has the end of its log, without tokens."""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port on the loopback interface that nobody listens on now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    name: str, command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block ends; yields once it accepts connections on the port. Raises ProcessError."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env)
    try:
        _wait_until_it_listens(name, process, port, log)
        yield process
    finally:
        _stop(process)


@contextmanager
def interruptible() -> Iterator[None]:
    """Has SIGTERM end the block as Ctrl-C does, so that what was started in it is ended too.

    Ctrl-C is given its meaning back first: a shell has it ignored in what it runs in the background, and asyncio
    cancels its main task only where it has Python's own meaning.
    """
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)


def run(name: str, command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Runs a program to its end. Raises ProcessError when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"{name} failed with exit code {done.returncode}:\n{redacted(done.stderr[-2000:])}")


def _wait_until_it_listens(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    state = "still not listening" if process.returncode is None else f"ended with exit code {process.returncode}"
    raise ProcessError(f"{name} didn't start ({state}):\n{redacted(log.read_text(errors='replace')[-2000:])}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT)
