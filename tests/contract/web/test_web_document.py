"""The examples of docs/web.md, run unchanged with a real server."""

import re
import sys
import time
from pathlib import Path
from types import ModuleType

import httpx
import jwt
import pytest

from support.deployment import SECRETS
from support.signing import event, webhook_token
from support.web import calling

DOCUMENT = (Path(__file__).parents[3] / "docs" / "web.md").read_text()
ENDPOINT, HOOKS, BEFORE, AFTER, MATRIX = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def signed_in_app(names):
    """A document's application, with a login instead of the placeholder."""
    names["app"].dependency_overrides[names["signed_in"]] = lambda: "7"
    return names["app"]


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Runs a block with a caller's certificate and returns its names."""

    def run(source, caller, domain="example"):
        authority = getattr(server, f"{domain}_ca")
        cert, key = authority.issue(uris=[f"spiffe://{domain}.org/{caller}"]).write(tmp_path, "client")
        (tmp_path / "ca.pem").write_bytes(server.server_ca.leaf_pem)
        for name, value in {
            "ADDRESS": f"localhost:{server.port}",
            "CA": tmp_path / "ca.pem",
            "CERT": cert,
            "KEY": key,
        }.items():
            monkeypatch.setenv(f"LIVEKIT_AUTH_{name}", str(value))
        module = ModuleType("document")
        monkeypatch.setitem(sys.modules, "document", module)  # where pydantic resolves names
        exec(compile(source, "web.md", "exec"), vars(module))  # noqa: S102 - this project's documentation
        return vars(module)

    return run


def claims(token, key_id="APIalpha"):
    return jwt.decode(token, SECRETS[key_id], algorithms=["HS256"])


@pytest.mark.parametrize(("source", "most"), [(ENDPOINT, 15), (HOOKS, 10)])
def test_first_examples_are_short(source, most):
    assert len([line for line in source.splitlines() if line.strip()]) <= most


async def test_token_endpoint_example_works(run):
    names = run(ENDPOINT, "web")
    async with calling(names["app"]) as http:
        assert (await http.post("/livekit/token-source", json={})).status_code == 401  # the placeholder login
    async with calling(signed_in_app(names)) as http:
        answer = await http.post("/livekit/token-source", json={"room_name": "consult-42"})
        refused = await http.post("/livekit/token-source", json={"room_name": "consult-43"})
    assert (answer.status_code, refused.status_code) == (201, 403)
    assert claims(answer.json()["participant_token"])["sub"] == "user-7"


async def test_webhook_example_works(run, capsys):
    body = event(id=f"EV_{time.time_ns()}")
    async with calling(run(HOOKS, "hooks")["app"]) as http:
        headers = {"authorization": webhook_token(body)}
        statuses = [(await http.post("/livekit/webhook", content=body, headers=headers)).status_code for _ in range(2)]
    assert statuses == [200, 200]
    assert capsys.readouterr().out == "user-1 is in consult-1\n"


async def test_quick_start_works_before_and_after(run, monkeypatch):
    monkeypatch.setenv("LIVEKIT_API_KEY", "APIalpha")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRETS["APIalpha"])
    monkeypatch.setenv("LIVEKIT_URL", "wss://alpha.example.org")
    before, after = run(BEFORE, "web")["app"], signed_in_app(run(AFTER, "web"))
    asked = {"user_id": "7", "room": "consult-42"}
    async with calling(before) as old, calling(after) as new:
        then, now = (await old.post("/livekit/token", params=asked)), (await new.post("/livekit/token", params=asked))
        stolen = await new.post("/livekit/token", params={**asked, "user_id": "8"})
        elsewhere = await new.post("/livekit/token", params={**asked, "room": "consult-43"})
    assert then.status_code == now.status_code == 200
    assert then.json().keys() == now.json().keys() == {"token", "url"}
    assert then.json()["url"] == now.json()["url"]
    assert claims(then.json()["token"])["video"] == claims(now.json()["token"])["video"]
    assert (stolen.status_code, elsewhere.status_code) == (403, 403)


def homeserver(request):
    known = request.url.host == "matrix.example.org" and request.url.params["access_token"] == "good"
    return httpx.Response(200, json={"sub": "@ada:example.org"}) if known else httpx.Response(401, json={})


@pytest.mark.parametrize(
    ("token", "matrix_server", "status"),
    [
        ("good", "example.org", 200),
        ("bad", "example.org", 401),
        ("good", "evil.example.org", 401),
        ("good", "127.0.0.1:1", 401),
    ],
)
async def test_lk_jwt_service_endpoint_example_works(run, token, matrix_server, status):
    names = run(MATRIX, "web", "other")
    await names["matrix"].aclose()
    names["matrix"] = httpx.AsyncClient(transport=httpx.MockTransport(homeserver))
    asked = {
        "room": "!room:example.org",
        "openid_token": {
            "access_token": token,
            "matrix_server_name": matrix_server,
            "token_type": "Bearer",
            "expires_in": 9,
        },
        "device_id": "DEV",
    }
    async with calling(names["app"]) as http:
        answer = await http.post("/sfu/get", json=asked)
    assert answer.status_code == status, answer.text
    if status == 200:
        minted = claims(answer.json()["jwt"], "APIbeta")
        assert minted["sub"] == "@ada:example.org:DEV"
        assert minted["video"]["room"].startswith("matrix-")
    await names["matrix"].aclose()
