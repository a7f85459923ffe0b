"""The hostile clients of `campaign.hostile`: python -m campaign.attackers KIND PORT FOLDER.

FOLDER holds the certificates that `campaign.hostile` wrote. An attacker goes on until it is killed; whatever the server
answers, it tries again. It prints a line once every part of it has reached the server.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from livekit_auth.v1 import auth_service_pb2 as pb
from support.pki import Credential
from support.raw_http2 import RawConnection
from support.signing import access_token

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
SERVICE = "/livekit_auth.v1.AuthService"
PAUSE = 0.02  # seconds before a refused connection is tried again
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
DENIED = pb.IssueTokenRequest(role="guest", room="elsewhere", identity="user-1")


@dataclass(frozen=True)
class Target:
    """The server under attack, and the folder with certificates to attack it with."""

    port: int
    folder: Path

    def credential(self, name: str) -> Credential:
        """NAME.pem with its chain, and NAME.key."""
        leaf, *chain = x509.load_pem_x509_certificates((self.folder / f"{name}.pem").read_bytes())
        key: Any = load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        return Credential(leaf, key, tuple(chain))

    def raw(self, name: str) -> RawConnection:
        """A connection that speaks frames."""
        roots: Any = self.credential("server")  # only its certificate is used
        roots = Credential(x509.load_pem_x509_certificate((self.folder / "server-ca.pem").read_bytes()), roots.key)
        return RawConnection(self.port, self.credential(name), roots)

    def call(self, name: str, method: str) -> Callable[..., bytes]:
        """A method on a connection of its own; takes bytes."""
        roots, key, certificate = (
            (self.folder / file).read_bytes() for file in ("server-ca.pem", f"{name}.key", f"{name}.pem")
        )
        credentials = grpc.ssl_channel_credentials(roots, key, certificate)
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(f"localhost:{self.port}", credentials, options).unary_unary(f"{SERVICE}/{method}")


def silent_health(target: Target) -> None:
    """4,100 calls of Health/Check without a message, from a certificate that names no workload."""
    _streams(target, "nobody", 41, "/grpc.health.v1.Health/Check", announced=0)


def silent_reflection(target: Target) -> None:
    """4,100 reflection streams that ask nothing, from a caller that the policy doesn't list."""
    _streams(target, "stranger", 41, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", announced=0)


def large_halves(target: Target) -> None:
    """800 requests that announce 4 MiB and stop a byte before the end, from a listed caller."""
    _streams(target, "hooks", 8, f"{SERVICE}/VerifyWebhook", announced=4 * MIB)


def large_halves_of_nobody(target: Target) -> None:
    """The same from a certificate that names no workload, to a method whose requests are small."""
    _streams(target, "nobody", 8, f"{SERVICE}/GetCaller", announced=4 * MIB)


def empty_messages(target: Target) -> None:
    """40 batches at once, each 1 MB of empty messages, which take many times as much when decoded."""
    _calls(40, lambda _: (target.call("web", "BatchIssueTokens"), b"\x0a\x00" * (500 * KIB)))


def full_batches(target: Target) -> None:
    """40 batches of 500 tokens at once."""
    batch = pb.BatchIssueTokensRequest(requests=[ASK] * 500).SerializeToString()
    _calls(40, lambda _: (target.call("web", "BatchIssueTokens"), batch))


def junk_chains(target: Target) -> None:
    """50 calls at once, each with another chain of junk that is dear to verify."""
    names = sorted(path.stem for path in target.folder.glob("junk-*.pem"))
    _calls(50, lambda turn: (target.call(names[turn % len(names)], "GetCaller"), b""), connections_every=4)


def connections(target: Target) -> None:
    """As many connections of one caller as the server takes; each makes a call and stays."""

    def connect() -> RawConnection:
        connection = target.raw("stranger")
        connection.message(connection.open(f"{SERVICE}/GetCaller"), b"")
        return connection

    _hold(2500, connect)


def idle_connections(target: Target) -> None:
    """As many connections of one caller as the server takes, none of which ever makes a call."""
    _hold(2500, lambda: target.raw("stranger"))


def sockets(target: Target) -> None:
    """As many TCP connections as the server takes, without a handshake."""
    _hold(2500, lambda: socket.create_connection(("127.0.0.1", target.port), timeout=5))


def denials(target: Target) -> None:
    """Denials without a pause, from a listed caller and from one that the policy doesn't list."""
    denied = DENIED.SerializeToString()
    _calls(8, lambda turn: (target.call(("web", "stranger")[turn % 2], "IssueToken"), denied))


def large_tokens(target: Target) -> None:
    """Properly signed tokens of 2 MB to verify, eight at once."""
    request = pb.VerifyTokenRequest(token=access_token(metadata="x" * (1500 * KIB))).SerializeToString()
    _calls(8, lambda _: (target.call("hooks", "VerifyToken"), request))


def large_webhooks(target: Target) -> None:
    """Webhook bodies of nearly 4 MiB that nobody signed, eight at once."""
    request = pb.VerifyWebhookRequest(body=b"{" * (4 * MIB - 2 * KIB), authorization=access_token())
    _calls(8, lambda _: (target.call("hooks", "VerifyWebhook"), request.SerializeToString()))


KINDS = {
    attack.__name__: attack
    for attack in (
        silent_health,
        silent_reflection,
        large_halves,
        large_halves_of_nobody,
        empty_messages,
        full_batches,
        junk_chains,
        connections,
        idle_connections,
        sockets,
        denials,
        large_tokens,
        large_webhooks,
    )
}


def _streams(target: Target, name: str, connections: int, path: str, *, announced: int) -> None:
    """Keeps 100 calls open on each connection; each sends its message but for the last byte, or nothing at all."""

    def attack() -> None:
        with target.raw(name) as connection:
            streams: set[int] = set()
            while not connection.closed:
                new = [connection.open(path) for _ in range(100 - len(streams))]
                for stream in new if announced else ():
                    connection.announce(stream, announced)
                streams.update(new)
                reached()
                if announced:
                    connection.fill(dict.fromkeys(new, announced - 1))
                connection.receive(PAUSE)
                streams -= connection.ended
                time.sleep(PAUSE)

    reached = _countdown(connections)
    _forever([attack] * connections)


def _calls(
    many: int, prepare: Callable[[int], tuple[Callable[..., bytes], bytes]], *, connections_every: int = 0
) -> None:
    """Calls without a pause on this many connections; `connections_every` calls each connects anew."""
    turns = itertools.count()

    def attack() -> None:
        call, request = prepare(next(turns))
        reached()
        for number in itertools.count(1):
            with suppress(grpc.RpcError):
                call(request, timeout=30)
            if connections_every and number % connections_every == 0:
                return

    reached = _countdown(many)
    _forever([attack] * many)


def _hold(most: int, connect: Callable[[], Any]) -> None:
    """Opens connections and keeps them, and opens others for those that the server closed."""
    reached = _countdown(most // 10)
    with ExitStack() as held:
        for number in itertools.count():
            if number % most == most - 1:
                held.close()  # the server has closed most of them by now
            try:
                held.enter_context(connect())
            except OSError:
                time.sleep(PAUSE)
            reached()


def _countdown(many: int) -> Callable[[], None]:
    """Prints a line when it has been called this often."""
    left = itertools.count(many - 1, -1)

    def reached() -> None:
        if next(left) == 0:
            print("under way", flush=True)

    return reached


def _forever(attacks: list[Callable[[], None]]) -> None:
    def again(attack: Callable[[], None]) -> None:
        while True:
            with suppress(OSError):
                attack()
            time.sleep(PAUSE)

    threads = [threading.Thread(target=again, args=(attack,), daemon=True) for attack in attacks]
    for thread in threads:
        thread.start()
    threads[0].join()


if __name__ == "__main__":
    KINDS[sys.argv[1]](Target(int(sys.argv[2]), Path(sys.argv[3])))
