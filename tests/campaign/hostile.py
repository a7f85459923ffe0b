"""A hostile client of each kind beside a listed caller, whose calls must not fail.

    PYTHONPATH=tests CAMPAIGN_SCALE=short python -m campaign.hostile [KIND …]

Each attack meets a new server. The listed caller makes a call, waits a moment and makes another, on an old connection
and now and then on a new one; first with nobody else about, then beside the attacker, which has a process of its own.
One line an attack: the caller's failures and its 99th percentile before and during the attack, and the most memory that
the server took. Ends with 1 when a call failed or a server took more than MOST_MEMORY.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from campaign.attackers import KINDS
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import Deployment, environment
from support.pki import NOW, Authority, Credential, key_usage

if TYPE_CHECKING:
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

MIB = 1024 * 1024
MOST_MEMORY = 450 * MIB  # of the 512 that the chart gives a pod
SECONDS = {"short": (1.5, 4.0), "full": (5.0, 30.0)}  # with nobody else about, and beside the attacker
UNDER_WAY = 20.0  # seconds at most that an attacker is given to connect
PAUSE = 0.02  # seconds between two calls
PATIENCE = 10.0  # seconds for a call, the least that a client of ours is given
NEW_EVERY = 10  # calls, of which one is on a new connection
JUNK = 40
CALLER = "spiffe://example.org/admin"
ASK = pb.IssueTokenRequest(project="alpha", role="guest", room="room-1", identity="user-1")


@dataclass
class Seen:
    """What the listed caller saw. Times are in seconds."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """The 99th percentile in milliseconds."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)] * 1000 if self.seconds else float("nan")


@dataclass
class Caller:
    """The listed caller."""

    deployment: Deployment

    def __post_init__(self) -> None:
        self.credential = self.deployment.example_ca.issue(uris=[CALLER])
        self.stub = self.deployment.stub(self.credential)

    def call_for(self, seconds: float) -> Seen:
        """Calls for this long."""
        seen, until, count = Seen(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            count += 1
            began = time.perf_counter()
            try:
                self._call(anew=count % NEW_EVERY == 0)
            except grpc.RpcError as error:
                seen.failed.append(f"{error.code().name}: {error.details()}")
            seen.seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE)
        return seen

    def _call(self, *, anew: bool) -> None:
        if not anew:
            self.stub.IssueToken(ASK, timeout=PATIENCE)
            return
        stub: AuthServiceStub = self.deployment.stub(self.credential)
        try:
            stub.IssueToken(ASK, timeout=PATIENCE, wait_for_ready=True)
        finally:
            self.deployment.channels.pop().close()


class Memory:
    """The most memory, in bytes, that a process had while this watched it."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)


def junk_chain(authority: Authority) -> Credential:
    """A leaf that TLS accepts and the identity check doesn't, and junk to look for a path in.

    The CA belongs to one trust domain and the leaf names another. Beside it come a certificate with the CA's own name
    and key, and seven CAs of one name on P-521 that could each have signed any of the others.
    """
    leaf = authority.issue(uris=["spiffe://example.org/web"])
    keys = [ec.generate_private_key(ec.SECP521R1()) for _ in range(7)]
    junk = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "junk")])
    bearers = [(authority.certificate.subject, authority.key.public_key()), *((junk, key.public_key()) for key in keys)]
    chain = [
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(junk)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(authority.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, digital_signature=False), critical=True)
        .sign(keys[number - 1], hashes.SHA256())
        for number, (subject, public) in enumerate(bearers)
    ]
    return Credential(leaf.certificate, leaf.key, tuple(chain))


def attacked(kind: str, folder: Path, scale: str) -> bool:
    """Runs one attack and prints its line; whether the server held."""
    deployment = Deployment(folder)
    deployment.write("audit: {path: audit, required: true}")
    for name, uris in {"nobody": (), "stranger": ("stranger",), "web": ("web",), "hooks": ("hooks",)}.items():
        deployment.example_ca.issue(uris=[f"spiffe://example.org/{uri}" for uri in uris], dns=["x"]).write(folder, name)
    if kind == "junk_chains":
        for number in range(JUNK):
            junk_chain(deployment.other_ca).write(folder, f"junk-{number}")
    alone, beside = SECONDS[scale]
    deployment.start()
    assert deployment.process is not None
    try:
        caller = Caller(deployment)
        caller.call_for(0.5)
        before = caller.call_for(alone)
        command = [sys.executable, "-m", "campaign.attackers", kind, str(deployment.port), str(folder)]
        with Memory(deployment.process.pid) as memory:
            quiet = {**environment(None), "GRPC_VERBOSITY": "NONE"}
            attacker = subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE)
            try:
                assert attacker.stdout is not None
                select.select([attacker.stdout], [], [], UNDER_WAY)
                during = caller.call_for(beside)
                gone = attacker.poll()
            finally:
                attacker.kill()
                attacker.wait()
    finally:
        deployment.stop()
    held = not during.failed and memory.most <= MOST_MEMORY and gone is None
    print(
        f"{'ok   ' if held else 'WRONG'} {kind:24} {len(during.failed)} of {len(during.seconds)} calls failed, "
        f"p99 {before.p99:.0f} → {during.p99:.0f} ms, {memory.most / MIB:.0f} MiB"
        + (f"; first failure: {during.failed[0]}" if during.failed else "")
        + (f"; the attacker ended with {gone}" if gone is not None else ""),
        flush=True,
    )
    return held


def main() -> int:
    """Runs the attacks that are named, or all; 0 when the server held against each."""
    scale = "short" if os.environ.get("CAMPAIGN_SCALE") == "short" else "full"
    wrong = []
    for kind in sys.argv[1:] or KINDS:
        with tempfile.TemporaryDirectory(prefix="livekit-auth-hostile-") as folder:
            if not attacked(kind, Path(folder), scale):
                wrong.append(kind)
    print(f"hostile clients: {len(wrong)} of {len(sys.argv[1:] or KINDS)} took something from a listed caller")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
