"""A SPIFFE Workload API on a Unix socket that sends what a test puts, in the protocol of a real agent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe._proto import workload_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cryptography import x509

    from support.pki import Authority, Credential

METHOD = "/SpiffeWorkloadAPI/FetchX509SVID"


def response(*svids: tuple[str, Credential, Authority], federated: Mapping[str, Authority] | None = None) -> object:
    """An X509SVIDResponse: each SVID's id, credential and the CA of its own trust domain; CAs of other domains."""
    return pb.X509SVIDResponse(
        svids=[
            pb.X509SVID(
                spiffe_id=name,
                x509_svid=_der(credential.certificate, *credential.chain),
                x509_svid_key=credential.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                bundle=_der(authority.certificate),
            )
            for name, credential, authority in svids
        ],
        federated_bundles={f"spiffe://{name}": _der(ca.certificate) for name, ca in (federated or {}).items()},
    )


def _der(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)


@dataclass
class FakeAgent:
    """Sends `put` responses to every stream; without one it says that the workload has no identity."""

    directory: Path
    current: object | None = field(default=None, repr=False)
    headers: list[dict[str, str | bytes]] = field(default_factory=list)
    version: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    server: grpc.Server | None = None

    @property
    def socket(self) -> str:
        return f"unix://{self.directory / 'agent.sock'}"

    def put(self, sent: object | None) -> None:
        """What every stream gets from now on; None ends them: the workload's entry is gone."""
        with self.changed:
            self.current, self.version = sent, self.version + 1
            self.changed.notify_all()

    def start(self) -> None:
        handler = grpc.unary_stream_rpc_method_handler(
            self._fetch, pb.X509SVIDRequest.FromString, pb.X509SVIDResponse.SerializeToString
        )
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.server.add_registered_method_handlers("SpiffeWorkloadAPI", {"FetchX509SVID": handler})
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchX509SVID": handler}),)
        )
        self.server.add_insecure_port(f"unix:{self.directory / 'agent.sock'}")
        self.server.start()

    def stop(self) -> None:
        """As when the agent's process ends."""
        assert self.server
        server, self.server = self.server, None
        stopping = server.stop(None)
        with self.changed:
            self.version += 1
            self.changed.notify_all()
        stopping.wait(5)

    def _fetch(self, _request: object, context: grpc.ServicerContext) -> Iterator[object]:
        self.headers.append(dict(context.invocation_metadata()))
        seen = -1
        while context.is_active() and self.server:
            with self.changed:
                if seen == self.version:
                    self.changed.wait(1)
                    continue
                seen, sent = self.version, self.current
            if sent is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            yield sent


@contextmanager
def fake_agent(directory: Path, sent: object | None = None) -> Iterator[FakeAgent]:
    """An agent that runs until the block ends."""
    agent = FakeAgent(directory, sent)
    agent.start()
    try:
        yield agent
    finally:
        if agent.server:
            agent.stop()
