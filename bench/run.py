"""Measures the server and reports the figures, without pass or fail: `python -m bench.run` from the repository's root.

The server, an empty grpc.aio handler and one that calls livekit-api take turns (A B C A B C …) on one CPU. The load
runs on another CPU, so other work on the machine affects all of them equally. "us" is the server's user and system time
per call. "user us" leaves out system time, which is mostly gRPC's threads waking one another; its cost differs between
kernels. Compare figures only within one run. `--against TREE` also measures another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench import devfolder, micro, policy
from bench.processes import Cpus, Load, Server, free_address, serving
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import auth_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
LOAD = ROOT / ".cache" / "bench" / "load"
SERVER, EMPTY, LIVEKIT_API, AGAINST = "livekit-auth", "empty handler", "livekit-api", "against"
PEERS = {EMPTY: "empty", LIVEKIT_API: "livekit-api"}
AUDIT_LOG, AUDIT_OFF = "audit in a log", "audit off"  # SERVER without the audit file, and without any audit trail
CLIENT_OF = {"IssueToken": "web", "VerifyWebhook": "webhooks"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int
    calls: int
    starts: int
    mint_rounds: int
    mint_loops: int
    reloads: int


FULL = Effort(rounds=9, calls=6000, starts=5, mint_rounds=15, mint_loops=3000, reloads=4)
QUICK = Effort(rounds=3, calls=1200, starts=1, mint_rounds=5, mint_loops=1000, reloads=1)


@dataclass(slots=True)
class Series:
    """One method of one server: microseconds of CPU per call, and the figures of the load generator, per round."""

    server: str
    method: str
    target: Server
    load: Load
    microseconds: list[float] = field(default_factory=list)
    user: list[float] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)

    def measure(self, calls: int) -> None:
        """One round."""
        user, system = self.target.cpu_seconds()
        self.runs.append(self.load.run(calls))
        user_after, system_after = self.target.cpu_seconds()
        self.user.append((user_after - user) / calls * 1e6)
        self.microseconds.append(self.user[-1] + (system_after - system) / calls * 1e6)

    def summary(self, empty: Series) -> dict[str, Any]:
        """Medians of the rounds; each round's ratio is to the empty handler's time in the same round."""
        ratios = [mine / empties for mine, empties in zip(self.microseconds, empty.microseconds, strict=True)]
        return {
            "server": self.server,
            "method": self.method,
            "median": statistics.median(self.microseconds),
            "min": min(self.microseconds),
            "max": max(self.microseconds),
            "times_empty": statistics.median(ratios),
            "user": statistics.median(self.user),
            "user_times_empty": statistics.median(self.user) / statistics.median(empty.user),
            "calls_per_second": statistics.median(run["calls"] / run["seconds"] for run in self.runs),
            "p50_ms": statistics.median(run["p50_ms"] for run in self.runs),
            "p99_ms": statistics.median(run["p99_ms"] for run in self.runs),
        }


def build_load() -> None:
    """Builds the load generator into .cache; fast if it is up to date."""
    LOAD.parent.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-buildvcs=false", "-o", str(LOAD), "."]
    try:
        subprocess.run(command, cwd=ROOT / "bench" / "load", check=True)
    except FileNotFoundError:
        raise SystemExit("bench: the load generator needs Go 1.26 or later") from None


def server_command(directory: Path, name: str = SERVER) -> list[str | Path]:
    """The real server on the dev folder. AUDIT_LOG and AUDIT_OFF run it without a durable audit trail."""
    if name in (AUDIT_LOG, AUDIT_OFF):
        devfolder.without_audit_file(directory)
    program = "bench.audit_off" if name == AUDIT_OFF else "livekit_auth_server.cli"
    return [devfolder.BIN / "python", "-m", program, "serve", "--config", directory / "server.yaml"]


def peer_command(kind: str, directory: Path, address: str) -> list[str | Path]:
    """One of the peers on the dev folder's certificates."""
    return [devfolder.BIN / "python", "-m", "bench.peer_server", kind, directory, address]


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which another checkout's code runs."""
    return {"PYTHONPATH": os.pathsep.join((str(tree / "server"), str(tree / "clients" / "python")))}


def measure_calls(work: Path, cpus: Cpus, effort: Effort, connections: int, against: Path | None) -> dict[str, Any]:
    """CPU per call of every server and method, in turns, and the server's memory afterwards."""
    with ExitStack() as stack:

        def start(name: str, environment: Mapping[str, str] | None = None) -> Server:
            directory, address = work / name.replace(" ", "-"), free_address()
            devfolder.make(directory, address, environment)
            peer = PEERS.get(name)
            command = peer_command(peer, directory, address) if peer else server_command(directory, name)
            return stack.enter_context(serving(cpus.server, command, address, directory / "log", environment))

        def series(name: str, method: str, target: Server) -> Series:
            directory = work / name.replace(" ", "-")
            request = directory / f"{method}.request"
            webhook = method == "VerifyWebhook"
            request.write_bytes(
                devfolder.verify_webhook_request(directory) if webhook else devfolder.issue_token_request()
            )
            client = directory / CLIENT_OF[method]
            options: dict[str, object] = {
                "address": target.address,
                "ca": directory / "ca.pem",
                "cert": client.with_suffix(".pem"),
                "key": client.with_suffix(".key"),
                "method": method,
                "request": request,
                "connections": connections,
            }
            load = Load(cpus.load, [LOAD, *(f"-{option}={value}" for option, value in options.items())])
            stack.callback(load.close)
            return Series(name, method, target, load)

        servers = {name: start(name) for name in (SERVER, AUDIT_LOG, AUDIT_OFF, EMPTY, LIVEKIT_API)}
        if against is not None:
            servers[AGAINST] = start(AGAINST, environment_of(against))
        every = [
            series(name, method, target)
            for method in CLIENT_OF
            for name, target in servers.items()
            if method == "IssueToken" or name not in (AUDIT_LOG, AUDIT_OFF)
        ]
        for _ in range(effort.rounds):
            for one in every:
                one.measure(effort.calls)
        empty = {one.method: one for one in every if one.server == EMPTY}
        memory = {name: target.worker_mib() for name, target in servers.items()}
        return {"calls": [one.summary(empty[one.method]) for one in every], "rss_mib": memory}


def measure_start(work: Path, cpus: Cpus, effort: Effort) -> dict[str, float]:
    """Seconds from starting the process to the first answer over mutual TLS."""
    directory, address = work / "start", free_address()
    devfolder.make(directory, address)
    pem = [(directory / name).read_bytes() for name in ("ca.pem", "web.key", "web.pem")]
    creds = grpc.ssl_channel_credentials(*pem)
    taken = []
    for _ in range(effort.starts):
        started = time.monotonic()
        with serving(cpus.server, server_command(directory), address, directory / "log"):
            with grpc.secure_channel(address, creds) as channel:
                pb_grpc.AuthServiceStub(channel).GetCaller(pb.GetCallerRequest(), wait_for_ready=True, timeout=10)
            taken.append(time.monotonic() - started)
    return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}


def report(result: dict[str, Any]) -> str:
    """The figures as text."""
    about = result["about"]
    what = "{python}, grpcio {grpcio}; server on CPU {server_cpu}, load on CPU {load_cpu}; ".format(**about)
    how = "{connections} connections x 1 in flight, {rounds} rounds of {calls} calls in turns".format(**about)
    heads = (
        ("us median", 10),
        ("min-max", 14),
        ("x empty", 9),
        ("user us", 9),
        ("x empty", 9),
        ("calls/s", 9),
        ("p50 ms", 8),
        ("p99 ms", 8),
    )
    head = f"{'CPU per call':<16}{'server':<16}" + "".join(f"{title:>{width}}" for title, width in heads)
    lines = [f"Python {what}{how}", "", head]
    for row in result["calls"]:
        between = f"{row['min']:.0f}-{row['max']:.0f}"
        lines.append(
            f"{row['method']:<16}{row['server']:<16}{row['median']:>10.1f}{between:>14}{row['times_empty']:>9.2f}"
            f"{row['user']:>9.1f}{row['user_times_empty']:>9.2f}{row['calls_per_second']:>9.0f}{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}"
        )
    lines += ["", f"{'Making a token, in a loop':<32}{'us median':>10}{'min-max':>14}"]
    for name, row in result["mint"].items():
        between = f"{row['min']:.1f}-{row['max']:.1f}"
        lines.append(f"{name:<32}{row['median']:>10.2f}{between:>14}")
    start, memory = result["start_seconds"], result["rss_mib"]
    lines += [
        "",
        f"Start to first answer: {start['median']:.2f} s ({start['min']:.2f}-{start['max']:.2f})",
        "Memory after the load: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in memory.items()),
        "",
        policy.report(result["policy"]),
    ]
    return "\n".join(lines)


def measure(effort: Effort, connections: int, against: Path | None) -> dict[str, Any]:
    """Runs all measurements once."""
    build_load()
    cpus = Cpus.choose()
    with tempfile.TemporaryDirectory(prefix="livekit-auth-bench-") as folder:
        work = Path(folder)
        calls = measure_calls(work, cpus, effort, connections, against)
        start = measure_start(work, cpus, effort)
    large = policy.measure(effort.mint_rounds, effort.mint_loops, effort.reloads)
    if cpus.server is not None:
        os.sched_setaffinity(0, {cpus.server})
    return {
        "about": {
            "python": platform.python_version(),
            "grpcio": grpc.__version__,
            "machine": platform.platform(),
            "server_cpu": cpus.server,
            "load_cpu": cpus.load,
            "connections": connections,
            "rounds": effort.rounds,
            "calls": effort.calls,
            "request_bytes": len(devfolder.issue_token_request()),
            "webhook_bytes": len(devfolder.webhook_body()),
        },
        "calls": calls["calls"],
        "mint": micro.measure(effort.mint_rounds, effort.mint_loops),
        "rss_mib": calls["rss_mib"],
        "start_seconds": start,
        "policy": large,
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the server against an empty grpc.aio handler.")
    parser.add_argument(
        "--quick", action="store_true", help="under a minute: checks that measuring works; says little about speed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--connections", type=int, default=64, help="connections, each with one call in flight")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout to measure in the same run")
    options = parser.parse_args()
    result = measure(QUICK if options.quick else FULL, options.connections, options.against)
    print(report(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
