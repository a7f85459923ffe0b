"""Peers to compare the server with: the same contract on grpc.aio behind the same mutual TLS, with almost no work.

    python -m bench.peer_server empty|livekit-api DIRECTORY ADDRESS

`empty` answers every call with an empty response: the cost of grpc.aio, uvloop, TLS and protobuf alone.
`livekit-api` is a minimal service: it uses livekit-api's AccessToken and WebhookReceiver for each call, without
policy, identity, validation, audit or log. Both use the generated stubs, the dev folder's
certificates and the server's own channel options.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livekit_auth_server.transport.tls import Endpoint, ServerIdentity, pin_tls13

pin_tls13()

import grpc  # noqa: E402 - after pin_tls13
import uvloop  # noqa: E402
from cryptography import x509  # noqa: E402

from bench.devfolder import signing_key  # noqa: E402
from livekit_auth.v1 import auth_service_pb2 as pb  # noqa: E402
from livekit_auth.v1 import auth_service_pb2_grpc as pb_grpc  # noqa: E402
from livekit_auth_server.config.sections import LimitSettings  # noqa: E402
from livekit_auth_server.transport.grpc_aio.server import Limits  # noqa: E402

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

TTL = dt.timedelta(minutes=10)
LIMITS = Limits(**LimitSettings().model_dump())


class Empty(pb_grpc.AuthServiceServicer):
    """Does nothing."""

    async def IssueToken(self, request: pb.IssueTokenRequest, context: Context) -> pb.IssueTokenResponse:  # noqa: ARG002, D102, N802
        return pb.IssueTokenResponse()

    async def VerifyWebhook(self, request: pb.VerifyWebhookRequest, context: Context) -> pb.VerifyWebhookResponse:  # noqa: ARG002, D102, N802
        return pb.VerifyWebhookResponse()


class LiveKitApi(pb_grpc.AuthServiceServicer):
    """Signs and checks with livekit-api and does nothing else."""

    def __init__(self, key_id: str, secret: str) -> None:
        from livekit import api  # noqa: PLC0415 - 40 MiB that the empty peer doesn't need

        self._api, self._key_id, self._secret = api, key_id, secret
        self._receiver = api.WebhookReceiver(api.TokenVerifier(key_id, secret))

    async def IssueToken(self, request: pb.IssueTokenRequest, context: Context) -> pb.IssueTokenResponse:  # noqa: ARG002, D102, N802
        grants = self._api.VideoGrants(room_join=True, room=request.room, can_publish_data=False)
        token = self._api.AccessToken(self._key_id, self._secret).with_identity(request.identity)
        token = token.with_name(request.name).with_grants(grants).with_ttl(TTL)
        return pb.IssueTokenResponse(token=token.to_jwt(), url="ws://127.0.0.1:7880")

    async def VerifyWebhook(self, request: pb.VerifyWebhookRequest, context: Context) -> pb.VerifyWebhookResponse:  # noqa: ARG002, D102, N802
        event = self._receiver.receive(request.body.decode(), request.authorization)
        response = pb.VerifyWebhookResponse()
        response.event.raw_type, response.event.id, response.event.room = event.event, event.id, event.room.name
        return response


async def serve(servicer: pb_grpc.AuthServiceServicer, directory: Path, address: str) -> None:
    """Serves until SIGTERM."""
    server = grpc.aio.server(options=LIMITS.options(), maximum_concurrent_rpcs=LIMITS.concurrent_calls)
    pb_grpc.add_AuthServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call, unused-ignore]
    identity = ServerIdentity((directory / "server.pem").read_bytes(), (directory / "server.key").read_bytes())
    roots = x509.load_pem_x509_certificates((directory / "ca.pem").read_bytes())
    server.add_secure_port(address, Endpoint(identity, roots).credentials())
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(1)


def main() -> None:
    """Runs the command line."""
    kind, directory, address = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    # The other methods return UNIMPLEMENTED.
    servicer = Empty() if kind == "empty" else LiveKitApi(*signing_key(directory))  # type: ignore[abstract]
    uvloop.run(serve(servicer, directory, address))


if __name__ == "__main__":
    main()
