"""Compares a policy of 10,000 callers and 1,000 roles with one of ten. Run `python -m bench.policy` from the root.

A real server starts with ten callers and loads 10,000 while a client makes one call at a time. Then another large
policy replaces the first. Memory is that of the server process, read from /proc; the peak covers only the reload.
Decisions are timed in this process, in CPU time, and the two policies take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench import devfolder
from bench.processes import MIB, Cpus, Server, free_address, serving
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import auth_service_pb2_grpc as pb_grpc
from livekit_auth_server.core.policy import Grant, Policy, TokenRequest, decide
from livekit_auth_server.policy.policy_file import load_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL, LARGE = (10, 10), (10_000, 1_000)  # callers, roles
PROJECTS = frozenset({"default"})
PATIENCE = 120.0
_TRUST_DOMAIN = "dev.example.org"
_FLAGS = (
    *("room_join", "can_publish", "can_subscribe", "can_publish_data", "can_update_own_metadata", "hidden"),
    *("recorder", "can_subscribe_metrics", "room_admin", "can_manage_agent_session"),
)


def policy_text(callers: int, roles: int) -> str:
    """A policy as JSON. All callers and roles differ, and the dev folder's web backend is listed."""
    web = {"roles": ["guest"], "rooms": [{"prefix": "consult-"}], "identities": [{"prefix": "user-"}]}
    policy = {
        "version": 1,
        "roles": {
            "guest": {"video": {"room_join": True, "can_publish_data": False}},
            **{f"role-{number}": _role(number) for number in range(roles)},
        },
        "callers": [
            *(_caller(number, roles) for number in range(callers)),
            {"id": f"spiffe://{_TRUST_DOMAIN}/web", "allow": [{"projects": ["default"], **web}]},
        ],
    }
    return json.dumps(policy, indent=1) + "\n"


def _role(number: int) -> dict[str, Any]:
    return {"video": {flag: bool(number >> bit & 1) for bit, flag in enumerate(_FLAGS)}}


def _caller(number: int, roles: int) -> dict[str, Any]:
    entry = {
        "projects": ["default"],
        "roles": [f"role-{number % roles}", f"role-{number * 7 % roles}"],
        "powers": _FLAGS[5:],
        "rooms": [{"prefix": f"team-{number}-"}, {"exact": "lobby"}],
        "identities": [{"prefix": "user-"}],
        "ttl": {"default": "10m", "max": "1h"},
    }
    limits = [{"rate": "1000/s"}]
    return {"id": caller_id(number), "allow": [entry], "verify": {"webhooks": ["default"]}, "limits": limits}


def caller_id(number: int) -> str:
    """The ID of one of the generated callers."""
    return f"spiffe://example.org/ns/team-{number % 100}/sa/service-{number}"


# Decisions


def decision_cost(policies: Sequence[Policy], callers: int, rounds: int, loops: int) -> list[float]:
    """Median CPU microseconds per decision in each policy, for callers in random order."""
    asked = [_requests(policy, callers, loops) for policy in policies]
    taken: list[list[float]] = [[] for _ in policies]
    for _ in range(rounds):
        for number, policy in enumerate(policies):
            started = time.thread_time_ns()
            for caller, request in asked[number]:
                decide(policy, policy.callers[caller], request)
            taken[number].append((time.thread_time_ns() - started) / loops / 1000)
    return [statistics.median(one) for one in taken]


def _requests(policy: Policy, callers: int, count: int) -> list[tuple[str, TokenRequest]]:
    chance = random.Random(7)  # noqa: S311 - the same in every run
    able = [caller for caller in policy.callers.values() if caller.entries[0].rooms.exact]
    chosen = chance.sample(able, min(callers, len(able)))
    requests = [
        (caller.id, TokenRequest(min(caller.entries[0].roles), room="lobby", identity="user-1")) for caller in chosen
    ]
    assert all(isinstance(decide(policy, policy.callers[name], request), Grant) for name, request in requests)
    return chance.choices(requests, k=count)


# A server during a policy change


@dataclass
class Calls:
    """Makes one call at a time and records the duration of each, in milliseconds."""

    stub: pb_grpc.AuthServiceStub
    milliseconds: list[float] = field(default_factory=list)
    revision: str = ""
    stopping: bool = False

    def run(self) -> None:
        """Calls until it is stopped."""
        request = pb.IssueTokenRequest.FromString(devfolder.issue_token_request())
        while not self.stopping:
            started = time.perf_counter()
            self.revision = self.stub.IssueToken(request, timeout=30).policy_revision
            self.milliseconds.append((time.perf_counter() - started) * 1000)
            time.sleep(0.001)


def reload(server: Server, calls: Calls, path: Path, text: str) -> dict[str, float]:
    """Replaces the policy with the text and waits until it is in force."""
    before, count = calls.revision, len(calls.milliseconds)
    _reset_peak(server)
    user = sum(server.cpu_seconds())
    started = time.monotonic()
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)
    while calls.revision == before:
        if time.monotonic() - started > PATIENCE:
            raise RuntimeError("the policy wasn't put in force")
        time.sleep(0.005)
    seconds = time.monotonic() - started
    during = sorted(calls.milliseconds[count:])
    peak = _status_mib(server, "VmHWM")
    time.sleep(1)
    return {
        "seconds": seconds,
        "cpu_seconds": sum(server.cpu_seconds()) - user,
        "p50_ms": statistics.median(during),
        "p99_ms": during[int(len(during) * 0.99)],
        "max_ms": during[-1],
        "calls": len(during),
        "rss_mib": _status_mib(server, "VmRSS"),
        "peak_mib": peak,
    }


def _status_mib(server: Server, name: str) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 / MIB


def _reset_peak(server: Server) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM


def measure_server(work: Path, cpus: Cpus, reloads: int) -> dict[str, Any]:
    """Memory and latency of a server whose policy grows from ten to 10,000 callers, then changes to another 10,000."""
    directory, address = work / "policy", free_address()
    devfolder.make(directory, address)
    path, settings = directory / "policy.json", directory / "server.yaml"
    path.write_text(policy_text(*SMALL))
    settings.write_text(settings.read_text().replace("policy: policy.yaml", f"policy: {path.name}"))
    pem = [(directory / name).read_bytes() for name in ("ca.pem", "web.key", "web.pem")]
    program: list[str | Path] = [devfolder.BIN / "python", "-m", "livekit_auth_server.cli"]
    command = [*program, "serve", "--config", directory / "server.yaml"]
    with (
        serving(cpus.server, command, address, directory / "log") as server,
        grpc.secure_channel(address, grpc.ssl_channel_credentials(*pem)) as channel,
    ):
        calls = Calls(pb_grpc.AuthServiceStub(channel))
        thread = threading.Thread(target=calls.run)
        thread.start()
        try:
            time.sleep(3)
            result: dict[str, Any] = {
                "rss_small_mib": _status_mib(server, "VmRSS"),
                "p99_small_ms": sorted(calls.milliseconds)[int(len(calls.milliseconds) * 0.99)],
            }
            texts = [policy_text(*LARGE) + " " * number for number in range(reloads)]
            result["reloads"] = [reload(server, calls, path, text) for text in texts]
        finally:
            calls.stopping = True
            thread.join()
    return result


def measure(rounds: int = 9, loops: int = 20_000, reloads: int = 4) -> dict[str, Any]:
    """Runs all measurements once."""
    cpus = Cpus.choose()
    with tempfile.TemporaryDirectory(prefix="livekit-auth-bench-") as folder:
        work = Path(folder)
        policies, loading = [], []
        for size in (SMALL, LARGE):
            path = work / "policy.json"
            path.write_text(policy_text(*size))
            started = time.perf_counter(), time.thread_time()
            policies.append(load_policy(path, PROJECTS))
            loading.append(
                {"seconds": time.perf_counter() - started[0], "cpu_seconds": time.thread_time() - started[1]}
            )
        small, large = decision_cost(policies, 10, rounds, loops)
        _, spread = decision_cost(policies, LARGE[0], rounds, loops)
        return {
            "bytes": path.stat().st_size,
            "load": {"small": loading[0], "large": loading[1]},
            "decision_us": {"small": small, "large": large, "ratio": large / small, "all_callers": spread},
            "server": measure_server(work, cpus, reloads),
        }


def report(result: dict[str, Any]) -> str:
    """The figures as text."""
    load, cost, server = result["load"]["large"], result["decision_us"], result["server"]
    size = f"{result['bytes'] / MIB:.1f} MiB"
    lines = [
        f"A policy of {LARGE[0]} callers and {LARGE[1]} roles ({size}) beside one of {SMALL[0]}",
        f"  load: {load['seconds']:.2f} s ({load['cpu_seconds']:.2f} s CPU)",
        f"  decision, ten callers in turns: {cost['large']:.2f} us of CPU, {cost['ratio']:.2f} times as long",
        f"  decision, all callers in turns (no CPU caches that much): {cost['all_callers']:.2f} us",
        f"  server with {SMALL[0]} callers: {server['rss_small_mib']:.0f} MiB, p99 {server['p99_small_ms']:.1f} ms",
    ]
    for number, one in enumerate(server["reloads"]):
        growth = f"{one['rss_mib'] - server['rss_small_mib']:+.0f}"
        lines.append(
            f"  reload {number + 1}: in force in {one['seconds']:.2f} s ({one['cpu_seconds']:.2f} s CPU with calls); "
            f"{one['calls']} calls, p50 {one['p50_ms']:.1f}, p99 {one['p99_ms']:.1f}, max {one['max_ms']:.1f} ms; "
            f"{one['rss_mib']:.0f} MiB then ({growth}), peak {one['peak_mib']:.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="bench.policy", description="Measure a policy of 10,000 callers.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    result = measure()
    print(report(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
