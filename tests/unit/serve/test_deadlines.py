"""Who gives up first: the server's waits end before its clients' deadlines, so that a client learns what is wrong."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from livekit_auth._connection.config import DEFAULT_TIMEOUT
from livekit_auth._connection.retry import LAST_ATTEMPT_SECONDS
from livekit_auth_server.audit.audit_log import AuditLog
from livekit_auth_server.config.redis import RedisSettings
from livekit_auth_server.config.sections import AuditSettings
from livekit_auth_server.core.refusal import RETRY
from livekit_auth_server.service import calls, turns
from livekit_auth_server.transport.grpc_aio import gate, handlers

CONFIG = Path(__file__).parents[3] / "protos/livekit_auth/v1/auth_service_grpc_service_config.json"
[METHODS] = json.loads(CONFIG.read_text())["methodConfig"]
BYTES, MEMORY, TURN = gate.PATIENCE, calls.PATIENCE, turns.PATIENCE  # what is OVERLOADED when it ends
AUDIT = AuditSettings().patience
REDIS = RedisSettings.model_fields["timeout"].default


def test_every_client_has_the_same_timeout() -> None:
    assert METHODS["timeout"] == f"{DEFAULT_TIMEOUT:g}s"


def test_the_waits_of_a_call_together_end_before_its_clients_timeout() -> None:
    """A small call waits for its bytes, a large one for memory too, a batch for its turn, a large token for both."""
    issue = BYTES + MEMORY + REDIS + AUDIT
    batch = BYTES + TURN + REDIS + AUDIT
    verify_token = BYTES + MEMORY + REDIS + TURN
    verify_webhook = BYTES + MEMORY + 2 * REDIS  # for the limits, and for the acknowledgement
    assert max(issue, batch, verify_token, verify_webhook) < DEFAULT_TIMEOUT


def test_a_hung_disk_leaves_time_for_another_attempt() -> None:
    assert {field.name: field.default for field in fields(AuditLog)}["patience"] == AUDIT
    assert 2 * AUDIT + LAST_ATTEMPT_SECONDS < DEFAULT_TIMEOUT


def test_a_call_without_room_has_time_for_all_attempts() -> None:
    assert (METHODS["retryPolicy"]["maxAttempts"] - 1) * RETRY < DEFAULT_TIMEOUT


def test_redis_is_given_up_long_before_anything_else() -> None:
    assert min(BYTES, MEMORY, TURN, AUDIT) > REDIS * 10


def test_the_time_for_a_request_is_not_its_clients_timeout() -> None:
    """It bounds what a hostile client holds, and a client with a longer timeout may send slowly."""
    assert handlers.UNLISTED_TIMEOUT < DEFAULT_TIMEOUT < handlers.REQUEST_TIMEOUT
