"""A fake of AuthClient for the web parts, and an application that uses them, called without a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx

from livekit_auth import IssuedToken, VerifiedWebhook
from livekit_auth._messages.status import to_error
from livekit_auth.fastapi import Issuer
from livekit_auth.v1.auth_service_pb2 import VerifyWebhookRequest
from livekit_auth.v1.grants_pb2 import Grants
from livekit_auth.webhooks import Verifier
from support.fake_auth_server import TOKEN, refusal

if TYPE_CHECKING:
    from livekit_auth import AuthError, TokenRequest
    from livekit_auth._messages.webhook import DuplicateStatus

URL = "wss://livekit.example.org"
JSON = {"content-type": "application/json"}


def error(code: str, reason: str = "", message: str = "an internal reason", **details) -> AuthError:
    """What the client would raise for this refusal of the service to issue a token."""
    return to_error(refusal(code, reason, message, **details))


def not_verified(code: str, reason: str = "", message: str = "an internal reason", **details) -> AuthError:
    """What the client would raise for this refusal of the service to verify a webhook."""
    return to_error(refusal(code, reason, message, **details), VerifyWebhookRequest)


@dataclass
class FakeClient(Issuer, Verifier):
    """Raises `failure` when there is one, else answers well. Every webhook is genuine."""

    failure: Exception | None = None
    ack_failure: Exception | None = None
    event_type: str = "participant_joined"
    status: DuplicateStatus | None = None
    asked: list[TokenRequest] = field(default_factory=list)
    verified: list[tuple[bytes, str, str]] = field(default_factory=list)
    acknowledged: set[bytes] = field(default_factory=set)

    async def issue(self, request: TokenRequest) -> IssuedToken:
        self.asked.append(request)
        if self.failure:
            raise self.failure
        now = datetime.now(UTC)
        return IssuedToken(
            token=TOKEN,
            url=URL,
            expire_time=now + timedelta(minutes=10),
            issue_time=now,
            grants=Grants(),
            key_id="APIkey",
            policy_revision="r1",
            decision_id="dec-1",
            project="default",
        )

    async def verify_webhook(self, body: bytes, authorization: str, project: str = "") -> VerifiedWebhook:
        self.verified.append((body, authorization, project))
        if self.failure:
            raise self.failure
        return VerifiedWebhook(
            type=self.event_type,
            event_id="EV_1",
            room="consult-1",
            participant_identity="user-1",
            create_time=None,
            key_id="APIkey",
            project="default",
            duplicate_status=self.status or ("duplicate" if body in self.acknowledged else "new"),
            truncated=(),
            body_sha256=hashlib.sha256(body).digest(),
            body=body,
        )

    async def ack_webhook(self, event: VerifiedWebhook) -> None:
        if self.ack_failure:
            raise self.ack_failure
        self.acknowledged.add(event.body)


def calling(app) -> httpx.AsyncClient:
    """An HTTP client of an ASGI application; exceptions of the application become 500, as behind a server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://app.example.org")
