"""Every method with its handler: what a transport serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_auth_server.service.batches import Batches
from livekit_auth_server.service.caller import get_caller, list_permissions, list_projects
from livekit_auth_server.service.methods import (
    ACK_WEBHOOK,
    BATCH_ISSUE_TOKENS,
    GET_CALLER,
    GET_DECISION,
    GET_SERVER_INFO,
    ISSUE_TOKEN,
    LIST_PERMISSIONS,
    LIST_PROJECTS,
    VERIFY_TOKEN,
    VERIFY_WEBHOOK,
)
from livekit_auth_server.service.server_info import ServerInfo
from livekit_auth_server.service.tokens import Tokens

if TYPE_CHECKING:
    from livekit_auth_server.service.issue import Issuer
    from livekit_auth_server.service.method import Served
    from livekit_auth_server.service.turns import Turns
    from livekit_auth_server.service.webhooks import Webhooks


def handlers(issuer: Issuer, webhooks: Webhooks, turns: Turns) -> tuple[Served, ...]:
    """Every RPC of livekit_auth.v1.AuthService; a test compares them with `METHODS`."""
    return (
        ISSUE_TOKEN.served_by(issuer.issue),
        BATCH_ISSUE_TOKENS.queued_for(Batches(issuer, turns).issue),
        VERIFY_WEBHOOK.served_by(webhooks.verify, check=webhooks.check_size),
        ACK_WEBHOOK.served_by(webhooks.acknowledge),
        VERIFY_TOKEN.served_by(Tokens(turns).verify),
        GET_CALLER.served_by(get_caller),
        LIST_PERMISSIONS.served_by(list_permissions),
        LIST_PROJECTS.served_by(list_projects),
        GET_DECISION.served_by(issuer.decisions.get),
        GET_SERVER_INFO.served_by(ServerInfo.of(webhooks.max_body).get),
    )
