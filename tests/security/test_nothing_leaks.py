"""No secret and no token in the log, the metrics or an error, whatever is sent."""

from __future__ import annotations

import base64
import contextlib
import re
import urllib.request
from typing import TYPE_CHECKING

import grpc

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import SECRETS
from support.ports import free_port
from support.refusals import refusal
from support.signing import access_token, event, webhook_token

if TYPE_CHECKING:
    from support.deployment import Deployment

ANY_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}")


def test_a_busy_server_writes_no_secret_and_no_token(deployment: Deployment) -> None:
    metrics = free_port()
    deployment.write(f"metrics: 127.0.0.1:{metrics}")
    deployment.start()
    web, hooks = deployment.caller("spiffe://example.org/web"), deployment.caller("spiffe://example.org/hooks")
    body = event()
    token = webhook_token(body)
    issued = web.IssueToken(pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")).token
    answers = [
        refusal(lambda: hooks.VerifyWebhook(pb.VerifyWebhookRequest(body=b"x", authorization=token))),
        refusal(lambda: hooks.VerifyWebhook(pb.VerifyWebhookRequest(body=body, authorization=issued))),
        refusal(lambda: hooks.VerifyToken(pb.VerifyTokenRequest(token=token))),
        refusal(lambda: hooks.VerifyToken(pb.VerifyTokenRequest(token=issued + "x"))),
        refusal(lambda: hooks.VerifyToken(pb.VerifyTokenRequest(token=access_token("APIbeta")))),
        refusal(lambda: web.IssueToken(pb.IssueTokenRequest(role="guest", room=issued, identity=token))),
    ]
    hooks.VerifyWebhook(pb.VerifyWebhookRequest(body=body, authorization=token))
    hooks.VerifyToken(pb.VerifyTokenRequest(token=issued))
    with contextlib.suppress(grpc.RpcError):
        web.IssueToken(pb.IssueTokenRequest(role="guest"), metadata=(("authorization", issued),))
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as response:
        shown = response.read().decode()
    assert 'livekit_auth_calls_total{code="OK",method="IssueToken",reason=""} 1.0' in shown
    assert deployment.stop() == 0
    everything = deployment.log + shown + str(answers)
    assert "serving" in everything
    for secret in SECRETS.values():
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode() not in everything
    assert not ANY_JWT.search(everything)
