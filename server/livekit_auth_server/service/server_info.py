"""GetServerInfo: what the server is and takes, the same for every caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.service.issue import MAX_RESPONSE
from livekit_auth_server.service.methods import METHODS
from livekit_auth_server.service.validation import MAX_BATCH
from livekit_auth_server.service.version import VERSION

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import Caller
    from livekit_auth_server.service.validation import Valid


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Answers every GetServerInfo with one response."""

    response: pb.GetServerInfoResponse

    @classmethod
    def of(cls, max_webhook_body: int) -> ServerInfo:
        """What this server is. `max_webhook_body` is the setting, in bytes."""
        response = pb.GetServerInfoResponse(
            version=VERSION,
            contract_revision=pb.ContractRevision.keys()[-1],
            methods=[pb.MethodInfo(name=method.name, max_request_bytes=method.max_bytes) for method in METHODS],
            max_batch_entries=MAX_BATCH,
            max_webhook_body_bytes=max_webhook_body,
            max_response_bytes=MAX_RESPONSE,
        )
        return cls(response)

    async def get(self, _caller: Caller, _request: Valid[pb.GetServerInfoRequest]) -> pb.GetServerInfoResponse:
        """GetServerInfo."""
        return self.response
