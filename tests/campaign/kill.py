"""Kills a real server with SIGKILL under load, many times: every token that a client got must have its record.

`make campaign`, or `python -m campaign.kill` with tests/ in the path. CAMPAIGN_SCALE=short takes about 6 seconds.
CAMPAIGN_SEED repeats the choices of an earlier run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.audit.query import Wanted, search
from livekit_auth_server.audit.verify import verify_files
from livekit_auth_server.core.chain import Head
from support.deployment import Deployment

if TYPE_CHECKING:
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

ROUNDS = {"short": 4, "full": 60}
CHECK_EVERY = 20  # rounds; each check reads everything again
THREADS = 6
WEB = "spiffe://example.org/web"


@dataclass
class Campaign:
    """A deployment that is killed, and what its clients got: tokens, and how many calls failed."""

    deployment: Deployment
    chance: random.Random
    tokens: list[str] = field(default_factory=list)
    failed: int = 0
    rotations: int = 0
    heads: list[Head] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        return self.deployment.directory / "audit"

    def round(self, number: int) -> None:
        """Starts the server, loads it, kills it in the middle."""
        self.deployment.start()
        over = threading.Event()
        stubs = [self.deployment.caller(WEB) for _ in range(THREADS)]
        threads = [
            threading.Thread(target=self._load, args=(stub, over, f"{number}-{index}", self.chance.random()))
            for index, stub in enumerate(stubs)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + self.chance.uniform(0.1, 0.8)
        while time.monotonic() < until:
            time.sleep(0.05)
            if self.chance.random() < 0.1:
                self._rotate()
        assert self.deployment.process is not None
        os.kill(self.deployment.process.pid, signal.SIGKILL)
        self.deployment.process.wait(10)
        over.set()
        for thread in threads:
            thread.join(20)
        for channel in self.deployment.channels:
            channel.close()
        self.deployment.channels.clear()
        self._collect_heads()

    def finish(self) -> None:
        """One more start and an orderly stop."""
        self.deployment.start()
        assert self.deployment.stop() == 0
        self._collect_heads()

    def check(self) -> list[str]:
        """What is wrong; nothing should be."""
        verdict = verify_files([self.folder], self.heads)
        wrong = [f"{problem.file}:{problem.line}: {problem.what}" for problem in verdict.problems]
        recorded, withheld, by_hash = set(), set(), {}
        for fields in search([self.folder], Wanted()):
            if fields["kind"] == "withheld":
                withheld.add(fields["decision_id"])
            elif fields["kind"] == "decision" and fields["token_sha256"]:
                recorded.add(fields["token_sha256"])
                by_hash[fields["token_sha256"]] = fields["decision_id"]
        for token in self.tokens:
            digest = hashlib.sha256(token.encode()).hexdigest()
            if digest not in recorded:
                wrong.append(f"a client got a token without a record: sha256 {digest}")
            elif by_hash[digest] in withheld:
                wrong.append(f"a client got a token that is said to be withheld: {by_hash[digest]}")
        return wrong

    def _load(self, stub: AuthServiceStub, over: threading.Event, name: str, seed: float) -> None:
        chance, tokens, failed, count = random.Random(seed), [], 0, 0
        while not over.is_set():
            asked = [
                pb.IssueTokenRequest(role="guest", room="consult-1", identity=f"user-{name}-{count}-{index}")
                for index in range(chance.choice((1, 1, 1, 1, 40)))
            ]
            count += 1
            timeout = chance.choice((5, 5, 5, 0.003))
            try:
                if len(asked) == 1:
                    tokens.append(stub.IssueToken(asked[0], timeout=timeout).token)
                else:
                    batch = stub.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=asked), timeout=timeout)
                    tokens += [result.response.token for result in batch.results if result.response.token]
            except grpc.RpcError:
                failed += 1
                if self.deployment.process is None or self.deployment.process.poll() is not None:
                    break
        with self._lock:
            self.tokens += tokens
            self.failed += failed

    def _rotate(self) -> None:
        path = self.folder / "audit.0.jsonl"
        if path.exists():
            self.rotations += 1
            path.rename(path.with_name(f"{path.name}.{self.rotations}"))

    def _collect_heads(self) -> None:
        lines = self.deployment.log.splitlines()
        self.heads += [Head.parse(json.loads(line)["head"]) for line in lines if '"event":"audit head"' in line]


def main() -> int:
    """Runs the campaign; 0 when nothing is wrong."""
    rounds = ROUNDS["short" if os.environ.get("CAMPAIGN_SCALE") == "short" else "full"]
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="livekit-auth-campaign-") as folder:
        campaign = Campaign(Deployment(Path(folder)), random.Random(seed))
        campaign.deployment.write("audit: {path: audit, required: true}")
        try:
            for number in range(rounds):
                campaign.round(number)
                if number % CHECK_EVERY == CHECK_EVERY - 1 and (wrong := campaign.check()):
                    break
            else:
                campaign.finish()
                wrong = campaign.check()
        finally:
            if campaign.deployment.process is not None and campaign.deployment.process.poll() is None:
                campaign.deployment.stop()
        chains = len({head.chain for head in campaign.heads})
    for problem in wrong[:20]:
        print(f"WRONG {problem}", file=sys.stderr)
    print(
        f"seed {seed}: killed {rounds} times, rotated {campaign.rotations} times, {chains} chain(s), "
        f"{len(campaign.heads)} heads; {len(campaign.tokens)} tokens reached clients, {campaign.failed} calls failed, "
        f"{len(wrong)} problem(s)"
    )
    return 1 if wrong or not campaign.tokens else 0


if __name__ == "__main__":
    sys.exit(main())
