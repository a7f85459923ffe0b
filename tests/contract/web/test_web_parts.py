"""The routers with a real server process over mutual TLS: a browser's request and its response."""

import json
import time

import jwt
import pytest
from fastapi import FastAPI

from livekit_auth.fastapi import Access, Asked, token_router, webhook_router
from support.deployment import SECRETS
from support.ports import free_port
from support.signing import access_token, event, webhook_token
from support.web import calling

TOKENS, HOOKS = "/livekit/token-source", "/livekit/webhook"


def authorize(asked: Asked) -> Access:
    """Permits everything that is requested, so that only the server's policy decides."""
    return Access(
        room=asked.room_name or "consult-1",
        identity=asked.participant_identity or "user-1",
        name=asked.participant_name or "",
        room_config=asked.room_config,
        role="guest",
    )


def application(client):
    app = FastAPI()
    app.include_router(token_router(client, authorize=authorize))
    hooks = webhook_router(client)
    seen = []

    @hooks.on("participant_joined")
    async def joined(event):
        seen.append(event.participant_identity)

    app.include_router(hooks)
    return app, seen


@pytest.fixture
async def tokens(client_of):
    async with client_of("spiffe://example.org/web") as client, calling(application(client)[0]) as http:
        yield http


@pytest.fixture
async def hooks(client_of):
    async with client_of("spiffe://example.org/hooks") as client:
        app, seen = application(client)
        async with calling(app) as http:
            yield http, seen


# --- tokens ---


async def test_browser_gets_a_token_that_livekit_accepts(tokens):
    answer = await tokens.post(TOKENS, json={"room_name": "consult-7", "participant_name": "Ada"})
    assert (answer.status_code, answer.json()["server_url"]) == (201, "wss://alpha.example.org")
    claims = jwt.decode(answer.json()["participant_token"], SECRETS["APIalpha"], algorithms=["HS256"])
    assert (claims["sub"], claims["name"], claims["video"]["room"]) == ("user-1", "Ada", "consult-7")
    assert claims["video"]["roomJoin"]


async def test_older_request_gets_a_token(tokens):
    answer = await tokens.post("/livekit/token", json={"room": "consult-7", "user_id": "user-1"})
    assert (answer.status_code, answer.json()["url"]) == (200, "wss://alpha.example.org")
    assert jwt.decode(answer.json()["token"], SECRETS["APIalpha"], algorithms=["HS256"])["sub"] == "user-1"


@pytest.mark.parametrize("asked", [{"room_name": "board-1"}, {"participant_identity": "root"}])
async def test_denial_shows_only_the_id_of_its_record(server, tokens, asked):
    answer = await tokens.post(TOKENS, json=asked)
    assert answer.status_code == 403
    assert set(answer.json()) == {"detail", "decision_id"}
    assert server.audit(answer.json()["decision_id"])["caller"] == "spiffe://example.org/web"


async def test_agents_need_a_power_of_the_policy(tokens):
    asked = {"room_config": {"agents": [{"agent_name": "scribe"}]}}
    assert (await tokens.post(TOKENS, json=asked)).status_code == 403


async def test_field_over_livekits_limit_is_named(tokens):
    answer = await tokens.post(TOKENS, json={"room_name": "consult-" + "x" * 250, "participant_name": "a\nb"})
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"room_name", "participant_name"}


async def test_unavailable_server_has_retry_after(client_of):
    async with client_of("spiffe://example.org/web", free_port()) as client, calling(application(client)[0]) as http:
        answer = await http.post(TOKENS, json={})
    assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)


async def test_backend_that_the_policy_does_not_list_serves_nothing(client_of):
    async with client_of("spiffe://example.org/stranger") as client, calling(application(client)[0]) as http:
        assert (await http.post(TOKENS, json={})).status_code == 403


# --- webhooks ---


async def deliver(http, body, token, header="authorization"):
    return (await http.post(HOOKS, content=body, headers={header: token})).status_code


async def test_event_is_handled_once_despite_redeliveries(hooks):
    http, seen = hooks
    body = event(id=f"EV_{time.time_ns()}")
    assert [await deliver(http, body, webhook_token(body)) for _ in range(3)] == [200] * 3
    assert seen == ["user-1"]


async def test_second_header_is_accepted(hooks):
    http, seen = hooks
    body = event(id=f"EV_{time.time_ns()}")
    assert await deliver(http, body, webhook_token(body), "x-livekit-signature") == 200
    assert seen == ["user-1"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: (body, "nonsense"),
        lambda body: (body, webhook_token(body, algorithm="none")),
        lambda body: (body, webhook_token(body, "APIbeta")),
        lambda body: (body, webhook_token(body, "APIgone")),
        lambda body: (body, webhook_token(body, exp=int(time.time()) - 3600)),
        lambda body: (body, access_token()),
        lambda body: (body.replace(b"user-1", b"user-2"), webhook_token(body)),
        lambda body: (json.dumps(json.loads(body), indent=1).encode(), webhook_token(body)),
    ],
    ids=[
        "no token",
        "unsigned",
        "another project's key",
        "revoked key",
        "old",
        "access token",
        "altered",
        "reformatted",
    ],
)
async def test_forged_webhook_runs_no_handler(hooks, forge):
    http, seen = hooks
    assert await deliver(http, *forge(event(id=f"EV_{time.time_ns()}"))) == 401
    assert seen == []


async def test_consumer_that_may_not_verify_makes_livekit_resend(client_of):
    body = event()
    async with client_of("spiffe://example.org/web") as client, calling(application(client)[0]) as http:
        assert await deliver(http, body, webhook_token(body)) == 503
