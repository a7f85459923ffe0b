"""The examples as users run them: one uvicorn process each, with a real livekit-auth server."""

import asyncio
import importlib
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
from fastapi.testclient import TestClient

from support.deployment import SECRETS
from support.ports import free_port
from support.signing import event, webhook_token

EXAMPLES = Path(__file__).parents[3] / "examples"
PATIENCE = 30  # seconds


def settings(server, folder, caller):
    """The environment variables of a client with a caller's certificate."""
    cert, key = server.example_ca.issue(uris=[f"spiffe://example.org/{caller}"]).write(folder, "client")
    (folder / "ca.pem").write_bytes(server.server_ca.leaf_pem)
    return {
        "LIVEKIT_AUTH_ADDRESS": f"localhost:{server.port}",
        "LIVEKIT_AUTH_CA": str(folder / "ca.pem"),
        "LIVEKIT_AUTH_CERT": str(cert),
        "LIVEKIT_AUTH_KEY": str(key),
    }


@contextmanager
def running(server, folder, application, caller):
    """Runs an example with a caller's certificate. Yields its URL and the path of its log."""
    env = {**os.environ, **settings(server, folder, caller)}
    port, log = free_port(), folder / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", application, "--app-dir", EXAMPLES, "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=env)
    try:
        wait_until(lambda: "Uvicorn running" in log.read_text(), lambda: process.poll() is None, log)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait(10)


def wait_until(ready, alive, log):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert alive(), log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def test_token_server_serves_signed_in_users(server, tmp_path):
    with running(server, tmp_path, "token_server:app", "web") as (url, log):
        asked = {"room_name": "consult-7"}
        endpoint = f"{url}/livekit/token-source"
        assert httpx.post(endpoint, json=asked).status_code == 401
        assert httpx.post(endpoint, json=asked, headers={"authorization": "Bearer guessed"}).status_code == 401
        ada = {"authorization": "Bearer session-of-ada"}
        answer = httpx.post(endpoint, json=asked, headers=ada)
        older = httpx.post(f"{url}/livekit/token", json={"user_id": "ada", "room": "consult-7"}, headers=ada)
        stolen = httpx.post(f"{url}/livekit/token", json={"user_id": "bob", "room": "consult-7"}, headers=ada)
        board = httpx.post(endpoint, json={"room_name": "board-1"}, headers=ada)
    assert (answer.status_code, older.status_code, stolen.status_code, board.status_code) == (201, 200, 403, 403)
    for token in (answer.json()["participant_token"], older.json()["token"]):
        claims = jwt.decode(token, SECRETS["APIalpha"], algorithms=["HS256"])
        assert (claims["sub"], claims["name"], claims["video"]["room"]) == ("user-ada", "Ada", "consult-7")
        assert token not in log.read_text()


def test_webhook_receiver_handles_signed_events(server, tmp_path):
    body = event(id=f"EV_{time.time_ns()}")
    with running(server, tmp_path, "webhook_receiver:app", "hooks") as (url, log):
        signed = {"authorization": webhook_token(body)}
        answers = [httpx.post(f"{url}/livekit/webhook", content=body, headers=signed).status_code for _ in range(2)]
        forged = httpx.post(f"{url}/livekit/webhook", content=body + b" ", headers=signed).status_code
        assert (answers, forged) == ([200, 200], 401)
        assert log.read_text().count("participant_joined: user-1 in consult-1") == 1


@pytest.fixture
def under_test(server, tmp_path, monkeypatch):
    """Imports an example with a caller's certificate and runs it in FastAPI's TestClient, as its users do."""
    with ExitStack() as stack:

        def start(name, caller):
            for variable, value in settings(server, tmp_path, caller).items():
                monkeypatch.setenv(variable, value)
            monkeypatch.syspath_prepend(EXAMPLES)
            for module in [module for module in sys.modules if module.partition(".")[0] == name.partition(".")[0]]:
                monkeypatch.delitem(sys.modules, module)
            example = importlib.import_module(name)
            return stack.enter_context(TestClient(example.app)), example

        yield start


def test_token_server_works_with_testclient(under_test):
    http, example = under_test("token_server", "web")
    ada = {"authorization": "Bearer session-of-ada"}
    answers = [http.post("/livekit/token-source", json={"room_name": "consult-7"}, headers=ada) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert http.post("/livekit/token-source", json={"room_name": "board-1"}, headers=ada).status_code == 403
    http.__exit__()
    with pytest.raises(RuntimeError, match="closed"):  # by the lifespan
        asyncio.run(example.client.get_caller())


def test_webhook_receiver_works_with_testclient(under_test):
    http, _ = under_test("webhook_receiver", "hooks")
    body = event(id=f"EV_{time.time_ns()}")
    signed = {"authorization": webhook_token(body)}
    assert http.post("/livekit/webhook", content=body, headers=signed).json() == {"detail": "handled"}
    assert http.post("/livekit/webhook", content=body, headers=signed).json() == {"detail": "already handled"}
    assert http.post("/livekit/webhook", content=body + b" ", headers=signed).status_code == 401


def test_browser_room_works_with_testclient(under_test):
    (EXAMPLES / "web_room/build").mkdir(exist_ok=True)  # built by npm, not needed here
    http, _ = under_test("web_room.app", "web")
    assert http.post("/livekit/token-source", json={"room_name": "consult-1"}).status_code == 401
    assert http.post("/sign-in", json={"user": "ada"}).status_code == 200
    assert http.post("/livekit/token-source", json={"room_name": "consult-1"}).status_code == 201
