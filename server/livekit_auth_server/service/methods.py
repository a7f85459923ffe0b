"""The service's methods by name: what a transport serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.service.batches import Batches
from livekit_auth_server.service.caller import get_caller
from livekit_auth_server.service.calls import Method, OpenMethod
from livekit_auth_server.service.issue import MAX_ISSUE_REQUEST
from livekit_auth_server.service.tokens import Tokens
from livekit_auth_server.service.validation import KIB

if TYPE_CHECKING:
    from livekit_auth_server.service.issue import Issuer
    from livekit_auth_server.service.turns import Turns
    from livekit_auth_server.service.webhooks import Webhooks

SERVICE = pb.DESCRIPTOR.services_by_name["AuthService"].full_name


def methods(issuer: Issuer, webhooks: Webhooks, turns: Turns) -> tuple[Method[Any, Any] | OpenMethod[Any, Any], ...]:
    """Every RPC of livekit_auth.v1.AuthService."""
    batches = Batches(issuer, turns)
    return (
        Method("IssueToken", pb.IssueTokenRequest, issuer.issue, MAX_ISSUE_REQUEST, audited=True),
        Method(
            "BatchIssueTokens", pb.BatchIssueTokensRequest, batches.issue, MAX_ISSUE_REQUEST, audited=True, queued=True
        ),
        Method("VerifyWebhook", pb.VerifyWebhookRequest, webhooks.verify, 4 * KIB * KIB),
        Method("AckWebhook", pb.AckWebhookRequest, webhooks.acknowledge, 4 * KIB),
        Method("VerifyToken", pb.VerifyTokenRequest, Tokens(turns).verify, 4 * KIB * KIB),
        OpenMethod("GetCaller", pb.GetCallerRequest, get_caller, 4 * KIB),
    )
