"""The service's methods, each declared once.

The names in rate limits and settings, what a call costs, the transport's endpoints and the tests of the documents
derive from `METHODS`. A test compares it with the service in protos/livekit_auth/v1/auth_service.proto. To add a
method, declare it here and name its handler in service.handlers.
"""

from __future__ import annotations

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.service import costs
from livekit_auth_server.service.admission import Caller, ListedCaller
from livekit_auth_server.service.method import AnyMethod, Method
from livekit_auth_server.service.validation import KIB

SERVICE = pb.DESCRIPTOR.services_by_name["AuthService"].full_name

ISSUE_TOKEN = Method(
    name="IssueToken",
    request=pb.IssueTokenRequest,
    response=pb.IssueTokenResponse,
    callers=ListedCaller,
    permission="projects",
    max_bytes=KIB * KIB,  # messages within messages grow fifty-fold in memory
    cost=costs.of_request,
    audited=True,
)
BATCH_ISSUE_TOKENS = Method(
    name="BatchIssueTokens",
    request=pb.BatchIssueTokensRequest,
    response=pb.BatchIssueTokensResponse,
    callers=ListedCaller,
    permission="projects",
    max_bytes=ISSUE_TOKEN.max_bytes,
    cost=costs.of_batch,
    counts_as=ISSUE_TOKEN,
    audited=True,
    queued=True,
)
VERIFY_WEBHOOK = Method(
    name="VerifyWebhook",
    request=pb.VerifyWebhookRequest,
    response=pb.VerifyWebhookResponse,
    callers=ListedCaller,
    permission="verify_webhooks",
    max_bytes=4 * KIB * KIB,
    cost=costs.of_request,
)
ACK_WEBHOOK = Method(
    name="AckWebhook",
    request=pb.AckWebhookRequest,
    response=pb.AckWebhookResponse,
    callers=ListedCaller,
    permission="verify_webhooks",
    max_bytes=4 * KIB,
    cost=costs.of_request,
)
VERIFY_TOKEN = Method(
    name="VerifyToken",
    request=pb.VerifyTokenRequest,
    response=pb.VerifyTokenResponse,
    callers=ListedCaller,
    permission="verify_tokens",
    max_bytes=4 * KIB * KIB,
    cost=costs.of_any_project,
)
GET_CALLER = Method(
    name="GetCaller",
    request=pb.GetCallerRequest,
    response=pb.GetCallerResponse,
    callers=Caller,
    permission=None,
    max_bytes=4 * KIB,
    cost=costs.of_no_project,
)
LIST_PERMISSIONS = Method(
    name="ListPermissions",
    request=pb.ListPermissionsRequest,
    response=pb.ListPermissionsResponse,
    callers=ListedCaller,
    permission=None,
    max_bytes=4 * KIB,
    cost=costs.of_no_project,
)
LIST_PROJECTS = Method(
    name="ListProjects",
    request=pb.ListProjectsRequest,
    response=pb.ListProjectsResponse,
    callers=ListedCaller,
    permission=None,
    max_bytes=4 * KIB,
    cost=costs.of_no_project,
)
GET_DECISION = Method(
    name="GetDecision",
    request=pb.GetDecisionRequest,
    response=pb.GetDecisionResponse,
    callers=ListedCaller,
    permission=None,  # its caller's own decisions, and those of projects: the handler looks
    max_bytes=4 * KIB,
    cost=costs.of_no_project,
)
GET_SERVER_INFO = Method(
    name="GetServerInfo",
    request=pb.GetServerInfoRequest,
    response=pb.GetServerInfoResponse,
    callers=Caller,
    permission=None,
    max_bytes=4 * KIB,
    cost=costs.of_no_project,
)

METHODS: tuple[AnyMethod, ...] = (
    ISSUE_TOKEN,
    BATCH_ISSUE_TOKENS,
    VERIFY_WEBHOOK,
    ACK_WEBHOOK,
    VERIFY_TOKEN,
    GET_CALLER,
    LIST_PERMISSIONS,
    LIST_PROJECTS,
    GET_DECISION,
    GET_SERVER_INFO,
)
LIMITED = tuple(method.name for method in METHODS if method.counts_as is None)
"""What a rate limit can name."""
COUNTED_AS = {method.name: method.limit for method in METHODS if method.counts_as is not None}
"""Methods that a rate limit can't name, and the one that it names instead."""
WITHOUT_PROJECT = frozenset(method.name for method in METHODS if method.cost is costs.of_no_project)
"""Methods that no limit of a project counts."""
