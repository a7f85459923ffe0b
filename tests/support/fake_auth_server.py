"""An AuthService over real mutual TLS that answers as a test tells it to."""
# ruff: noqa: N802 - the methods have the contract's names

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceServicer, add_AuthServiceServicer_to_server
from livekit_auth.v1.permissions_pb2 import AllowEntry, Matcher, Project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from support.pki import Authority

TOKEN = "header.payload.signature"
ISSUED_AT = 1_800_000_000


def refusal(
    code: str,
    reason: str = "",
    message: str = "no",
    *,
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_after: int | None = None,
    domain: str = "livekit-auth",
) -> Status:
    """The google.rpc.Status of a failed call, as the contract has it."""
    details: list[Message] = []
    if reason:
        details.append(ErrorInfo(domain=domain, reason=reason, metadata=metadata or {}))
    if violations:
        fields = [BadRequest.FieldViolation(field=f, description=d) for f, d in violations.items()]
        details.append(BadRequest(field_violations=fields))
    if retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.seconds = retry_after
        details.append(retry)
    status = Status(code=Code.Value(code), message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def issued(request: pb.IssueTokenRequest | None = None, *, lifetime: int = 600) -> pb.IssueTokenResponse:
    """What the server would answer to a permitted request."""
    request = request or pb.IssueTokenRequest()
    response = pb.IssueTokenResponse(
        token="" if request.validate_only else TOKEN,
        url="wss://livekit.example.org",
        key_id="APIkey",
        policy_revision="r1",
        decision_id="dec-1",
        project=request.project or "default",
    )
    response.issue_time.seconds = ISSUED_AT
    response.expire_time.seconds = ISSUED_AT + (request.ttl.seconds or lifetime)
    response.grants.video.room_join = True
    return response


@dataclass
class FakeAuthService(AuthServiceServicer):
    """Takes one step of `script` a call (a refusal, or seconds to wait first), then answers well."""

    script: deque[Status | float] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    user_agents: list[str] = field(default_factory=list)
    peers: list[bytes] = field(default_factory=list)
    connections: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    url: str = ""
    listed: bool = True
    entries: list[AllowEntry] = field(default_factory=lambda: [_entry()])
    """What the policy permits, one entry or part of one a page."""
    revision: Any = field(default_factory=lambda: max(pb.ContractRevision.values()))
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def _step(self, request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.requests.append(request)
        self.called.set()
        self.user_agents.append(str(dict(context.invocation_metadata() or ())["user-agent"]))
        self.peers.extend(context.auth_context()["x509_pem_cert"])
        self.connections.add(context.peer())
        step = self.script.popleft() if self.script else None
        if isinstance(step, Status):
            details = (("grpc-status-details-bin", step.SerializeToString()),) if step.details else ()
            await context.abort(next(c for c in grpc.StatusCode if c.value[0] == step.code), step.message, details)
        if step is not None:
            await asyncio.sleep(step)

    async def IssueToken(self, request, context):
        await self._step(request, context)
        response = issued(request)
        response.url = self.url or response.url
        return response

    async def BatchIssueTokens(self, request, context):
        await self._step(request, context)
        denied = refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", metadata={"decision_id": "dec-2"})
        odd = {"admin": pb.IssueTokenResult(error=denied), "from-the-future": pb.IssueTokenResult()}
        results = [odd.get(e.role) or pb.IssueTokenResult(response=issued(e)) for e in request.requests]
        return pb.BatchIssueTokensResponse(results=results)

    async def VerifyWebhook(self, request, context):
        await self._step(request, context)
        response = pb.VerifyWebhookResponse(key_id="APIkey", project="default")
        response.event.raw_type = "participant_joined"
        response.event.id = "" if b"without id" in request.body else "EV_1"
        response.event.room = "lobby"
        response.event.participant_identity = "ada"
        response.event.create_time.seconds = ISSUED_AT
        handled = response.event.id in self.acknowledged
        response.duplicate_status = pb.DUPLICATE_STATUS_DUPLICATE if handled else pb.DUPLICATE_STATUS_NEW
        return response

    async def AckWebhook(self, request, context):
        await self._step(request, context)
        self.acknowledged.add(request.event_id)
        response = pb.AckWebhookResponse()
        response.expire_time.seconds = ISSUED_AT + 3600
        return response

    async def VerifyToken(self, request, context):
        await self._step(request, context)
        response = pb.VerifyTokenResponse(room="lobby", identity="ada", key_id="APIkey", project="default")
        response.expire_time.seconds = ISSUED_AT
        return response

    async def GetCaller(self, request, context):
        await self._step(request, context)
        response = pb.GetCallerResponse(workload_id="spiffe://example.org/web", listed=self.listed)
        response.certificate_expire_time.seconds = ISSUED_AT
        return response

    async def ListPermissions(self, request, context):
        await self._step(request, context)
        return _page(pb.ListPermissionsResponse, request, [{"entries": [part]} for part in self.entries])

    async def ListProjects(self, request, context):
        await self._step(request, context)
        names = ("default", "staging")
        return _page(pb.ListProjectsResponse, request, [{"projects": [Project(name=name)]} for name in names])

    async def GetDecision(self, request, context):
        await self._step(request, context)
        response = pb.GetDecisionResponse()
        decision = response.decision
        decision.decision_id, decision.reason, decision.shortfall_count = request.decision_id, "ROOM_NOT_PERMITTED", 1
        decision.decide_time.seconds = ISSUED_AT
        decision.shortfalls.add(entry="web").lacks.add(reason="ROOM_NOT_PERMITTED", message="not this room")
        return response

    async def GetServerInfo(self, request, context):
        await self._step(request, context)
        methods = [pb.MethodInfo(name="IssueToken", max_request_bytes=1_048_576)]
        return pb.GetServerInfoResponse(
            version="0.2.0", contract_revision=self.revision, methods=methods, max_batch_entries=500
        )


def _entry() -> AllowEntry:
    entry = AllowEntry(name="web", projects=["default"], rooms=[Matcher(prefix="consult-")])
    entry.roles.add(name="guest").grants.video.room_join = True
    entry.identities.add(any=True)
    entry.max_ttl.seconds = 3600
    return entry


def _page(kind, request, pages):
    """The page that a token names, which is the number of the page."""
    at = int(request.page_token or 0)
    return kind(**pages[at], next_page_token=str(at + 1) if at + 1 < len(pages) else "")


@contextlib.asynccontextmanager
async def serving(service: FakeAuthService, authority: Authority, port: int = 0) -> AsyncIterator[str]:
    """Serves on 127.0.0.1, on a free port unless one is given, and gives HOST:PORT."""
    leaf = authority.issue(dns=["localhost"])
    server = grpc.aio.server()
    add_AuthServiceServicer_to_server(service, server)
    pairs = [(leaf.key_pem, leaf.cert_pem)]
    credentials = grpc.ssl_server_credentials(pairs, authority.leaf_pem, require_client_auth=True)
    port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)
