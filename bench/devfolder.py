"""A dev folder for measurements, created by `livekit-auth-server dev`, and requests that its policy permits."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from livekit_auth.v1 import auth_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN = Path(sys.executable).parent


def make(directory: Path, address: str, environment: Mapping[str, str] | None = None) -> None:
    """Writes PKI, keys, policy and settings for a server on the address, with the code of the environment."""
    command = [str(BIN / "livekit-auth-server"), "dev", "--dir", str(directory), "--address", address]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})


def without_audit_file(directory: Path) -> None:
    """Configures the folder's server to write its audit trail to its log."""
    settings = directory / "server.yaml"
    text = settings.read_text()
    assert "audit: {path: audit}\n" in text
    settings.write_text(text.replace("audit: {path: audit}\n", ""))


def signing_key(directory: Path) -> tuple[str, str]:
    """The id and the secret of the folder's one API key."""
    key_id, _, secret = (directory / "keys.yaml").read_text().strip().partition(": ")
    return key_id, secret


def issue_token_request() -> bytes:
    """A web backend's request for a guest token valid for ten minutes: 95 bytes."""
    request = pb.IssueTokenRequest(
        project="default",
        role="guest",
        room="consult-2f7a41c09b1d4e55",
        identity="user-81c3e7d2",
        name="Dr. Ada Lovelace-Okonkwo (Bern)",
        ttl=Duration(seconds=600),
    )
    return request.SerializeToString()


def verify_webhook_request(directory: Path) -> bytes:
    """A participant_joined of about 700 bytes, signed as LiveKit signs it; valid for two hours."""
    from livekit import api  # noqa: PLC0415 - slow to import

    body = webhook_body()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    token = api.AccessToken(*signing_key(directory)).with_sha256(digest).with_ttl(dt.timedelta(hours=2))
    return pb.VerifyWebhookRequest(body=body, authorization=token.to_jwt()).SerializeToString()


def webhook_body() -> bytes:
    """The event as livekit-server's protojson writes it."""
    now = str(int(time.time()))
    room = {
        "sid": "RM_hycBMAjmt6Ub",
        "name": "consult-2f7a41c09b1d4e55",
        "emptyTimeout": 300,
        "departureTimeout": 20,
        "creationTime": now,
        "creationTimeMs": f"{now}123",
        "enabledCodecs": [{"mime": mime} for mime in ("audio/opus", "video/VP8", "video/H264", "video/VP9")],
        "numParticipants": 1,
    }
    participant = {
        "sid": "PA_9sPX4vjyXHqN",
        "identity": "user-81c3e7d2",
        "name": "Dr. Ada Lovelace-Okonkwo (Bern)",
        "state": "ACTIVE",
        "joinedAt": now,
        "joinedAtMs": f"{now}456",
        "metadata": json.dumps({"department": "cardiology", "locale": "de-CH", "device": "tablet-11"}),
        "version": 3,
        "permission": {"canSubscribe": True, "canPublish": True},
    }
    event = {
        "event": "participant_joined",
        "room": room,
        "participant": participant,
        "id": "EV_eugWmGhovZmm",
        "createdAt": now,
    }
    return json.dumps(event, separators=(",", ":")).encode()
