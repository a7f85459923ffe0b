"""What the server is, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import Failure, ServerTooOld
from livekit_auth._messages.needed_server import NEEDS, REVISION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth.v1 import auth_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What the server is. The same for every caller."""

    version: str
    """The server's version, such as "0.2.0"."""
    contract_revision: int
    """The newest revision of the contract that it speaks, a value of ContractRevision. It speaks all earlier ones."""
    methods: Mapping[str, int]
    """The methods that it serves, each with the maximum size of its request in bytes."""
    max_batch_entries: int
    """The maximum number of entries in a batch."""
    max_webhook_body_bytes: int
    """The maximum size of a webhook's body, in bytes."""
    max_response_bytes: int
    """The maximum size of a response with tokens, in bytes."""


def server_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Reads GetServerInfoResponse."""
    return ServerInfo(
        version=message.version,
        contract_revision=message.contract_revision,
        methods=MappingProxyType({method.name: method.max_request_bytes for method in message.methods}),
        max_batch_entries=message.max_batch_entries,
        max_webhook_body_bytes=message.max_webhook_body_bytes,
        max_response_bytes=message.max_response_bytes,
    )


def required(server: ServerInfo) -> ServerInfo:
    """The same value. Raises ServerTooOld unless the server speaks each revision that this client knows."""
    if server.contract_revision < REVISION:
        message = f"the server {server.version} speaks an older revision of the contract; {NEEDS}"
        raise ServerTooOld(Failure("FAILED_PRECONDITION", message))
    return server
