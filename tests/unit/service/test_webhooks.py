"""VerifyWebhook and AckWebhook as handlers: what a caller may ask, how large a body may be, what is remembered."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.keys import KeySet, Project
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.handlers import handlers
from livekit_auth_server.service.ports import StoreUnavailable
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.service.validation import Valid
from livekit_auth_server.service.webhooks import EVENT_TYPES, STATUS_NAMES, Webhooks
from livekit_auth_server.telemetry.webhook_metrics import WebhookMetrics
from support.fakes import NOW, AuditTrail, FakeAckStore, FakeClock
from support.handlers import SECRET, URL, issuer, key, listed
from support.jws import sign

LIMIT = 2048
KEYS = KeySet([Project(name, URL, (key(f"API{name}"),)) for name in ("alpha", "beta")])
HOOKS = listed(keys=KEYS)
HOOKS = replace(HOOKS, policy=replace(HOOKS.policy, verify_webhooks=frozenset({"alpha"})))


def signed(body: bytes, project: str = "alpha") -> pb.VerifyWebhookRequest:
    digest = b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"iss": f"API{project}", "exp": NOW + 300, "sha256": digest}
    return pb.VerifyWebhookRequest(body=body, authorization=sign(claims, SECRET.encode()))


def body_of(size: int) -> bytes:
    empty = json.dumps({"event": "room_started", "id": "EV_1", "x": ""}).encode()
    return empty.replace(b'""}', b'"' + b"x" * (size - len(empty)) + b'"}')


async def refused(request: pb.VerifyWebhookRequest | pb.AckWebhookRequest, store: FakeAckStore) -> Refusal:
    served = {
        one.method.request: one for one in handlers(issuer(AuditTrail()), Webhooks(store, LIMIT), Turns(FakeClock()))
    }
    one = served[type(request)]
    with pytest.raises(Refusal) as caught:
        await one.handle(HOOKS, one.ready(request))
    return caught.value


async def test_a_body_of_exactly_the_limit_is_verified_and_a_longer_one_is_not():
    body = body_of(LIMIT)
    assert len(body) == LIMIT
    answer = await Webhooks(FakeAckStore(), LIMIT).verify(HOOKS, Valid(signed(body)))
    assert (answer.event.id, answer.duplicate_status) == ("EV_1", pb.DUPLICATE_STATUS_NEW)
    refusal = await refused(signed(body + b" "), FakeAckStore())
    assert (refusal.reason, refusal.metadata) == (Reason.BODY_TOO_LARGE, {"max_body_bytes": "2048"})


async def test_what_was_acknowledged_is_a_duplicate():
    store, request = FakeAckStore(), signed(body_of(200))
    webhooks = Webhooks(store, LIMIT)
    digest = hashlib.sha256(request.body).digest()
    ack = pb.AckWebhookRequest(project="alpha", event_id="EV_1", body_sha256=digest)
    assert (await webhooks.acknowledge(HOOKS, Valid(ack))).expire_time.seconds == NOW + 60
    assert store.stored == [(HOOKS.policy.id, "alpha", "EV_1", digest)]
    assert (await webhooks.verify(HOOKS, Valid(request))).duplicate_status == pb.DUPLICATE_STATUS_DUPLICATE


def test_the_contract_has_every_event_of_livekit():
    """livekit/protocol v1.54.0, webhook/consts.go. The Python package has no list of them."""
    assert set(EVENT_TYPES) == {
        *("room_started", "room_finished"),
        *("participant_joined", "participant_left", "participant_connection_aborted"),
        *("track_published", "track_unpublished"),
        *("egress_started", "egress_updated", "egress_ended", "ingress_started", "ingress_ended"),
        *("agent_job_pending", "agent_job_started", "agent_job_ended"),
    }


class AwayStore(FakeAckStore):
    async def is_acknowledged(self, *_args: Any, **_named: Any) -> bool:
        raise StoreUnavailable


@pytest.mark.parametrize(
    ("event_id", "store"), [("", FakeAckStore()), ("x" * 257, FakeAckStore()), ("EV_1", AwayStore())]
)
async def test_without_an_id_or_a_store_nobody_knows_whether_it_is_a_duplicate(event_id, store):
    registry = CollectorRegistry()
    webhooks = Webhooks(store, LIMIT, WebhookMetrics(registry))
    answer = await webhooks.verify(HOOKS, Valid(signed(json.dumps({"id": event_id}).encode())))
    assert answer.duplicate_status == pb.DUPLICATE_STATUS_UNKNOWN
    assert registry.get_sample_value("livekit_auth_webhooks_total", {"duplicate_status": "unknown"}) == 1


def test_a_metric_counts_each_status_of_the_contract():
    registry = CollectorRegistry()
    metrics = WebhookMetrics(registry)
    for status in STATUS_NAMES.values():
        metrics.checked(status)
        assert registry.get_sample_value("livekit_auth_webhooks_total", {"duplicate_status": status}) == 1


async def test_a_long_room_is_empty_and_named_as_truncated():
    body = json.dumps({"event": "room_started", "id": "EV_1", "room": {"name": "x" * 257}}).encode()
    event = (await Webhooks(FakeAckStore(), LIMIT).verify(HOOKS, Valid(signed(body)))).event
    assert (event.raw_type, event.room, list(event.truncated)) == ("room_started", "", ["room"])


async def test_a_body_over_the_limit_is_told_before_what_else_is_wrong():
    refusal = await refused(pb.VerifyWebhookRequest(body=b"x" * (LIMIT + 1)), FakeAckStore())
    assert refusal.reason is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("project", ["beta", "never"])
async def test_nothing_is_acknowledged_for_a_project_that_is_not_the_callers(project):
    store = FakeAckStore()
    ack = pb.AckWebhookRequest(project=project, event_id="EV_1", body_sha256=b"x" * 32)
    assert (await refused(ack, store)).reason is Reason.PROJECT_NOT_PERMITTED
    assert store.stored == []


async def test_a_webhook_of_another_project_is_of_an_unknown_key():
    assert (await refused(signed(body_of(200), "beta"), FakeAckStore())).reason is Reason.KEY_UNKNOWN
