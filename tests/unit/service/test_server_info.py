"""GetServerInfo says what the server is and takes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.service.server_info import ServerInfo
from livekit_auth_server.service.validation import Valid

NOBODY: Any = None


async def test_server_info_has_the_version_and_every_limit():
    answer = await ServerInfo.of(max_webhook_body=1234).get(NOBODY, Valid(pb.GetServerInfoRequest()))
    assert answer.version == version("livekit-auth-server")
    assert answer.contract_revision == max(pb.ContractRevision.values())
    assert [method.name for method in answer.methods] == [
        method.name for method in pb.DESCRIPTOR.services_by_name["AuthService"].methods
    ]
    limits = {method.name: method.max_request_bytes for method in answer.methods}
    assert (limits["IssueToken"], limits["VerifyToken"], limits["GetCaller"]) == (1 << 20, 4 << 20, 4096)
    assert (answer.max_batch_entries, answer.max_webhook_body_bytes) == (500, 1234)
    assert answer.max_response_bytes == 3 << 20
    assert {field.name for field, _ in answer.ListFields()} == set(answer.DESCRIPTOR.fields_by_name)
