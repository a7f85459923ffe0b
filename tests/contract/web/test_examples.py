"""The examples, as people run them: a uvicorn process each, in front of a real server."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt

from support.deployment import SECRETS
from support.ports import free_port
from support.signing import event, webhook_token

EXAMPLES = Path(__file__).parents[3] / "examples"
PATIENCE = 30  # seconds


@contextmanager
def running(server, folder, application, caller):
    """Runs an example with a caller's certificate; gives its url and the path of its log."""
    cert, key = server.example_ca.issue(uris=[f"spiffe://example.org/{caller}"]).write(folder, "client")
    (folder / "ca.pem").write_bytes(server.server_ca.leaf_pem)
    env = {
        **os.environ,
        "LIVEKIT_AUTH_ADDRESS": f"localhost:{server.port}",
        "LIVEKIT_AUTH_CA": str(folder / "ca.pem"),
        "LIVEKIT_AUTH_CERT": str(cert),
        "LIVEKIT_AUTH_KEY": str(key),
    }
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


def test_the_token_server_serves_signed_in_users(server, tmp_path):
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


def test_the_webhook_receiver_handles_what_livekit_signed(server, tmp_path):
    body = event(id=f"EV_{time.time_ns()}")
    with running(server, tmp_path, "webhook_receiver:app", "hooks") as (url, log):
        signed = {"authorization": webhook_token(body)}
        answers = [httpx.post(f"{url}/livekit/webhook", content=body, headers=signed).status_code for _ in range(2)]
        forged = httpx.post(f"{url}/livekit/webhook", content=body + b" ", headers=signed).status_code
        assert (answers, forged) == ([200, 200], 401)
        assert log.read_text().count("participant_joined: user-1 in consult-1") == 1
