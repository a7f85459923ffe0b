"""Processes to measure: started on their own CPU, measured, and stopped by the code that started them."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIB = 1024 * 1024
READY_SECONDS = 30.0
RUN_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Cpus:
    """The CPUs of the servers and of the load; None if the machine can't pin processes or has only one CPU."""

    server: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cpus:
        """The last two CPUs that this process may use: the first is where interrupts tend to go."""
        usable = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        if len(usable) < 2:  # noqa: PLR2004 - one for each
            return cls(None, None)
        return cls(usable[-1], usable[-2])


def pinned(cpu: int | None, command: Sequence[str | Path]) -> list[str]:
    """The command, pinned to one CPU."""
    return [*([] if cpu is None else ["taskset", "--cpu-list", str(cpu)]), *map(str, command)]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and the seconds from its start until it accepted connections."""

    process: psutil.Popen
    address: str

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far, of the process and its children."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(t.user for t in times), sum(t.system for t in times)

    def worker_mib(self) -> float:
        """Resident memory of the process that has done the most work, in MiB."""
        worker = max(self._processes(), key=lambda process: sum(process.cpu_times()[:2]))
        return float(worker.memory_info().rss) / MIB

    def _processes(self) -> list[Any]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def serving(
    cpu: int | None,
    command: Sequence[str | Path],
    address: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Starts a server, waits until it accepts connections, then stops it. Raises RuntimeError with the log's end."""
    with log.open("wb") as output:
        process = psutil.Popen(
            pinned(cpu, command), stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        _wait_until_listening(process, address, log)
        yield Server(process, address)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_listening(process: psutil.Popen, address: str, log: Path) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.003)
        else:
            return
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{Path(process.args[0]).name} doesn't serve on {address}; the end of its log:\n{tail}")


def free_address() -> str:
    """A free loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Load:
    """The load generator, connected to one server and warmed up. See load/main.go."""

    def __init__(self, cpu: int | None, command: Sequence[str | Path]) -> None:
        """Raises RuntimeError if it can't connect or its calls fail."""
        self._process = subprocess.Popen(
            pinned(cpu, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._answer()

    def run(self, calls: int) -> dict[str, Any]:
        """Makes exactly this number of calls. Raises RuntimeError if one fails."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % calls)
        self._process.stdin.flush()
        result = self._answer()
        if result["errors"] or result["calls"] != calls:
            raise RuntimeError(f"{result['errors']} of {result['calls']} calls failed: {result.get('first_error')}")
        return result

    def close(self) -> None:
        """Stops the load generator."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        output = self._process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            line = output.readline() if selector.select(RUN_SECONDS) else b""
        if not line:
            self._process.kill()
            raise RuntimeError(self._process.communicate()[1].decode(errors="replace").strip() or "no answer in time")
        answer: dict[str, Any] = json.loads(line)
        return answer
