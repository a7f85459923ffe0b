"""Worker processes of livekit-agents that hold a client certificate and nothing else, and what they expose."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from e2e.processes import LOOPBACK, ProcessError, free_port
from e2e.secrecy import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2e.deployment import Deployment

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = Path(__file__).with_name("agents")
PATIENCE = 60  # seconds; a worker takes a few to start, and the machine may be busy
STOP_TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running worker."""

    process: psutil.Popen
    log_file: Path

    @property
    def log(self) -> str:
        """What it has written, without tokens."""
        return redacted(self.log_file.read_text(errors="replace"))

    async def registered(self, times: int = 1) -> None:
        """Waits until it has registered so many times. Raises ProcessError."""
        await self.says("registered worker", times)

    async def says(self, text: str, times: int = 1) -> None:
        """Waits until a text stands in its log so many times. Raises ProcessError."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.log.count(text) < times and self.process.poll() is None:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        if self.log.count(text) < times:
            raise ProcessError(
                f"the worker (exit code {self.process.poll()}) didn't write {text!r} {times} times:\n{self.log[-3000:]}"
            )

    def exposed(self) -> dict[int, bytes]:
        """The environment and command line of it and every process below it, by process id."""
        family = [self.process, *self.process.children(recursive=True)]
        found = {}
        for member in family:
            folder = Path("/proc", str(member.pid))
            try:
                found[member.pid] = (folder / "environ").read_bytes() + b"\0" + (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
        return found


@contextmanager
def agent_worker(script: Path, deployment: Deployment, caller: str, folder: Path) -> Iterator[WorkerProcess]:
    """Runs a worker of livekit-agents with the certificate of a caller until the block ends."""
    # `dev` takes jobs however busy the machine is, and a free port for its health check.
    with worker_process([sys.executable, str(script), "dev", "--no-reload"], deployment, caller, folder) as process:
        yield process


@contextmanager
def worker_process(
    command: Sequence[str], deployment: Deployment, caller: str, folder: Path
) -> Iterator[WorkerProcess]:
    """Runs a command with the certificate of a caller, in an environment made from nothing, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HEALTH_PORT": str(free_port()),
        "LIVEKIT_AUTH_ADDRESS": f"{LOOPBACK}:{deployment.port}",
        "LIVEKIT_AUTH_CA": str(deployment.directory / "ca.pem"),
        "LIVEKIT_AUTH_CERT": str(deployment.directory / f"{caller}.pem"),
        "LIVEKIT_AUTH_KEY": str(deployment.directory / f"{caller}.key"),
    }
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield WorkerProcess(process, log)
    finally:
        _stop(process)


def _stop(process: psutil.Popen) -> None:
    """Ends the worker, and what it leaves behind, by process id."""
    family = process.children(recursive=True) if process.poll() is None else []
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT)
    for child in family:
        if child.is_running():
            child.kill()
