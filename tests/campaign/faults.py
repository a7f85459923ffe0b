"""Breaks what a server depends on under load, one thing at a time, and looks at what it does meanwhile.

`make campaign`, or `python -m campaign.faults` with tests/ in the path. CAMPAIGN_SCALE=short takes about 15 seconds.
CAMPAIGN_SEED repeats the order of an earlier run.

Callers that are permitted ask all the time, and so do a listed and an unlisted one that are denied. Throughout: no
token without its record. While the audit trail can't be written: no token at all, and /readyz says so within 2 s.
While anything else is broken: no failed call, and what is broken shows. Afterwards it recovers by itself.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from campaign.reload import replace
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.audit.query import Wanted, search
from livekit_auth_server.audit.verify import verify_files
from support.deployment import POLICY, Deployment
from support.mounts import small_disk
from support.ports import free_port
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

REPEATS = {"short": 1, "full": 10}
DISK = 96 * 1024 * 1024  # bytes, more than the trail of the longest run
TRUTH = 2.0  # seconds within which readiness must tell
HOLD = 0.25  # seconds that a fault stays after it shows
CALLERS = 4
WEB, OTHER = "spiffe://example.org/web", "spiffe://other.org/web"
DENIED = ("spiffe://example.org/hooks", "spiffe://example.org/stranger")
HANG = """
import os, time
real = os.fdatasync
def fdatasync(descriptor):
    while os.path.exists({flag!r}):
        time.sleep(0.01)
    return real(descriptor)
os.fdatasync = fdatasync
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks. `shows` is how one sees it; while `issues` is false no token may leave."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    shows: Callable[[], bool]
    issues: bool = True


@dataclass
class Campaign:
    """A server, what its clients got, and what went wrong."""

    deployment: Deployment
    disk: Path
    redis: RedisServer
    flag: Path
    metrics: int
    tokens: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    noticed: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    excused: threading.Event = field(default_factory=threading.Event)

    @property
    def trail(self) -> Path:
        return self.disk / "audit"

    @property
    def behind(self) -> Path:
        """The disk by another way, which stays writable."""
        return self.disk.with_name("behind")

    # --- load ---

    def ask(self, stub: AuthServiceStub, name: str) -> None:
        """A permitted caller: every call must succeed unless the audit trail is broken on purpose."""
        count = 0
        while not self.over.is_set():
            count += 1
            excused = self.excused.is_set()
            try:
                request = pb.IssueTokenRequest(role="guest", room="consult-1", identity=f"user-{name}-{count}")
                self.tokens.append(stub.IssueToken(request, timeout=10).token)
                self.counts["issued"] += 1
            except grpc.RpcError as error:
                if not excused and not self.excused.is_set():
                    self.wrong.append(f"a permitted call failed: {error.code().name}: {error.details()}")
                self.counts["failed"] += 1
            time.sleep(0.005)

    def be_denied(self, stub: AuthServiceStub) -> None:
        while not self.over.is_set():
            try:
                stub.IssueToken(pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1"), timeout=10)
                self.wrong.append("a denied caller got a token")
            except grpc.RpcError as error:
                if error.code() not in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                    self.wrong.append(f"a denied call failed otherwise: {error.code().name}")
                self.counts["denied"] += 1
            time.sleep(0.005)

    # --- what shows ---

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        return self.http("/readyz")[0] == 200

    def failing(self, kind: str) -> bool:
        found = re.search(rf'livekit_auth_reload_failed{{[^}}]*kind="{kind}"[^}}]*}} (\S+)', self.http("/metrics")[1])
        return found is not None and float(found[1]) == 1

    def redis_up(self) -> bool:
        found = re.search(r"^livekit_auth_redis_up(?:{[^}]*})? (\S+)", self.http("/metrics")[1], re.MULTILINE)
        return found is not None and float(found[1]) == 1

    # --- faults ---

    def faults(self) -> list[Fault]:
        disk = {
            "disk full": (self.fill, (self.disk / "filler").unlink),
            "disk hung": (self.flag.touch, self.flag.unlink),
            "disk read-only": (self.make_read_only, lambda: run("umount", self.disk)),
        }
        files = {"policy": "policy.yaml", "keys": "alpha.yaml", "certificate": "server.pem", "bundles": "example.pem"}
        return [
            *(Fault(name, begin, end, lambda: not self.ready(), issues=False) for name, (begin, end) in disk.items()),
            *(self.bad_file(kind, self.deployment.directory / name) for kind, name in files.items()),
            Fault("Redis down", self.redis.kill, self.redis.start, lambda: not self.redis_up()),
            Fault("Redis hung", self.redis.pause, self.redis.resume, lambda: not self.redis_up()),
            self.removed_ca(),
        ]

    def fill(self) -> None:
        piece = b"x" * 65536
        with (self.disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(piece)

    def make_read_only(self) -> None:
        """As a file system that turned read-only: what was open is gone, nothing can be made."""
        run("mount", "--bind", self.disk, self.disk)
        run("mount", "-o", "remount,bind,ro", self.disk)
        self.rotate(self.behind / "audit")

    def rotate(self, folder: Path) -> None:
        self.counts["rotated"] += 1
        (folder / "audit.0.jsonl").rename(folder / f"audit.0.jsonl.{self.counts['rotated']}")

    def bad_file(self, kind: str, path: Path) -> Fault:
        good = path.read_bytes()
        return Fault(
            f"bad {kind}",
            lambda: replace(path, good[: len(good) // 3] + b"\n: ["),
            lambda: replace(path, good),
            lambda: self.failing(kind),
        )

    def removed_ca(self) -> Fault:
        """The CA of one trust domain goes: its callers are refused on the connections that they have."""
        path, other = (
            self.deployment.directory / "other.pem",
            self.deployment.stub(self.deployment.other_ca.issue(uris=[OTHER])),
        )
        good = path.read_bytes()

        def refused() -> bool:
            try:
                other.GetCaller(pb.GetCallerRequest(), timeout=5)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        refused()  # connects
        return Fault(
            "CA removed", lambda: replace(path, self.deployment.dns_ca.leaf_pem), lambda: replace(path, good), refused
        )

    def run(self, fault: Fault) -> None:
        if not fault.issues:
            self.excused.set()
        began = time.monotonic()
        fault.begin()
        try:
            if self.within(TRUTH, fault.shows):
                self.noticed.append(time.monotonic() - began)
            else:
                self.wrong.append(f"{fault.name}: doesn't show within {TRUTH} s")
            time.sleep(HOLD)
            issued = self.counts["issued"]
            time.sleep(HOLD)
            if (self.counts["issued"] > issued) is not fault.issues:
                self.wrong.append(f"{fault.name}: tokens were {'not ' if fault.issues else ''}issued")
        finally:
            fault.end()
        began = time.monotonic()
        if self.within(8.0, lambda: not fault.shows() and self.ready()):
            self.recovered.append(time.monotonic() - began)
        else:
            self.wrong.append(f"{fault.name}: no recovery; /readyz: {self.http('/readyz')}")
        time.sleep(0.2)  # what waits in calls from before is over
        self.excused.clear()

    def within(self, seconds: float, true: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    # --- the whole ---

    def load(self, order: list[Fault]) -> None:
        stubs = [self.deployment.caller(WEB) for _ in range(CALLERS)]
        threads = [threading.Thread(target=self.ask, args=(stub, str(n))) for n, stub in enumerate(stubs)]
        threads += [threading.Thread(target=self.be_denied, args=(self.deployment.caller(uri),)) for uri in DENIED]
        for thread in threads:
            thread.start()
        try:
            if not self.within(5, lambda: self.ready() and self.redis_up()):
                self.wrong.append(f"never ready: {self.http('/readyz')}")
            for fault in order:
                self.run(fault)
        finally:
            self.over.set()
            for thread in threads:
                thread.join(20)

    def check(self) -> None:
        verdict = verify_files([self.trail])
        self.wrong += [f"{problem.file}:{problem.line}: {problem.what}" for problem in verdict.problems]
        withheld, recorded = set(), {}
        for fields in search([self.trail], Wanted()):
            if fields["kind"] == "withheld":
                withheld.add(fields["decision_id"])
            elif fields["kind"] == "decision" and fields["token_sha256"]:
                recorded[fields["token_sha256"]] = fields["decision_id"]
        for token in self.tokens:
            decision = recorded.get(hashlib.sha256(token.encode()).hexdigest())
            if decision is None or decision in withheld:
                self.wrong.append(f"a client got a token {'without a record' if decision is None else decision}")
        if any(secret in self.deployment.log for secret in ("MARKER", *self.tokens[:50])):
            self.wrong.append("the log holds a secret or a token")


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=10)


def campaign(folder: Path, order: random.Random, repeats: int) -> Campaign:
    """Runs it all on a disk of its own."""
    code, flag = folder / "code", folder / "hang"
    code.mkdir()
    (code / "sitecustomize.py").write_text(HANG.format(flag=str(flag)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    with small_disk(folder / "disk", DISK) as disk, RedisServer(folder) as redis:
        (folder / "behind").mkdir()
        run("mount", "--bind", disk, folder / "behind")
        deployment = Deployment(folder)
        metrics = free_port()
        deployment.write(
            f"audit: {{path: {disk / 'audit'}, required: true, patience: 1.0}}\n"
            f"metrics: 127.0.0.1:{metrics}\nredis: {{url: 'redis://127.0.0.1:{redis.port}'}}\n"
            "default_limits: [{rate: 9999/s}]\n"  # so that every call asks Redis
        )
        (folder / "policy.yaml").write_text(POLICY.replace("    verify: {webhooks: [alpha]}\n", ""))
        deployment.start()
        one = Campaign(deployment, disk, redis, flag, metrics)
        try:
            faults = one.faults()
            one.load([fault for _ in range(repeats) for fault in order.sample(faults, len(faults))])
        finally:
            flag.unlink(missing_ok=True)
            if deployment.stop() != 0:
                one.wrong.append("the server didn't end in order")
            run("umount", "--lazy", folder / "behind")
        one.check()
        return one


def main() -> int:
    """Runs the campaign; 0 when nothing is wrong."""
    repeats = REPEATS["short" if os.environ.get("CAMPAIGN_SCALE") == "short" else "full"]
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    with tempfile.TemporaryDirectory(prefix="livekit-auth-campaign-") as folder:
        try:
            one = campaign(Path(folder), random.Random(seed), repeats)
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            print(f"fault campaign: not run: {missing}", file=sys.stderr)
            return 1
    for problem in one.wrong[:20]:
        print(f"WRONG {problem}", file=sys.stderr)
    print(
        f"fault campaign: seed {seed}: {len(one.noticed)} faults, shown after at most "
        f"{max(one.noticed, default=0):.2f} s, over after at most {max(one.recovered, default=0):.2f} s; "
        f"{one.counts['issued']} tokens reached clients, {one.counts['denied']} calls denied, "
        f"{one.counts['failed']} not answered while the disk was broken, {len(one.wrong)} problem(s)"
    )
    return 1 if one.wrong or not one.tokens else 0


if __name__ == "__main__":
    sys.exit(main())
