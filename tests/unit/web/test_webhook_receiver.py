"""Receiving webhooks: which are trusted, which handlers run, and how LiveKit is answered."""

import asyncio
import functools
import logging
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from livekit_auth.fastapi import webhook_router
from livekit_auth.v1.webhook_pb2 import WebhookEventType
from livekit_auth.webhooks import EventType, WebhookReceiver
from support.web import FakeClient, calling, not_verified

PATH = "/livekit/webhook"
SIGNED = {"authorization": "header.payload.signature", "content-type": "application/webhook+json"}
BODY = b'{"event": "participant_joined", "id": "EV_1"}'


@pytest.fixture
def service():
    return FakeClient()


@pytest.fixture(params=["fastapi", "starlette"])
def hooks(service, request):
    return webhook_router(service) if request.param == "fastapi" else WebhookReceiver(service)


@pytest.fixture
async def http(hooks):
    if isinstance(hooks, WebhookReceiver):
        app = Starlette(routes=[Route(PATH, hooks)])
    else:
        app = FastAPI()
        app.include_router(hooks)
    async with calling(app) as http:
        yield http


@pytest.fixture
def seen(hooks):
    """The rooms of the events that the participant_joined handler got."""
    seen = []

    @hooks.on("participant_joined")
    async def joined(event):
        seen.append(event.room)

    return seen


async def deliver(http, body=BODY, headers=SIGNED):
    return await http.post(PATH, content=body, headers=headers)


# --- handlers ---


async def test_handler_runs_and_the_event_is_acknowledged(http, service, seen):
    assert (await deliver(http)).status_code == 200
    assert (seen, service.acknowledged) == (["consult-1"], {BODY})
    assert service.verified == [(BODY, SIGNED["authorization"], "")]


async def test_redelivery_is_not_handled_again(http, seen):
    assert [(await deliver(http)).status_code for _ in range(2)] == [200, 200]
    assert seen == ["consult-1"]


async def test_event_of_unknown_status_is_handled(http, service, seen):
    service.status = "unknown"
    assert [(await deliver(http)).status_code for _ in range(2)] == [200, 200]
    assert (seen, service.acknowledged) == (["consult-1"] * 2, {BODY})


async def test_event_without_a_handler_is_accepted(http, service, seen):
    service.event_type = "room_finished"
    assert (await deliver(http)).status_code == 200
    assert seen == []


async def test_handler_may_be_plain_or_partial_and_for_several_events(http, hooks, service):
    seen = []

    @hooks.on("participant_joined", "participant_left")
    def plain(event):
        seen.append(event.type)

    async def asynchronous(prefix, event):
        seen.append(prefix + event.type)

    hooks.on("participant_left")(functools.partial(asynchronous, "late "))
    await deliver(http)
    service.event_type = "participant_left"
    await deliver(http, BODY + b" ")
    assert seen == ["participant_joined", "participant_left", "late participant_left"]


async def test_plain_handler_does_not_block_others(http, hooks):
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    @hooks.on("participant_joined")
    def plain(event):
        asyncio.run_coroutine_threadsafe(reached.wait(), loop).result(5)

    delivery = asyncio.create_task(deliver(http))
    await asyncio.sleep(0.05)
    reached.set()
    assert (await delivery).status_code == 200


async def test_handler_of_all_events_gets_unknown_types(http, hooks, service):
    seen = []

    @hooks.on_any
    async def everything(event):
        seen.append(event.type)

    service.event_type = "from_the_future"
    assert (await deliver(http)).status_code == 200
    assert seen == ["from_the_future"]


@pytest.mark.parametrize("names", [["participant_join"], ["participant_joined", ""], []])
def test_handler_for_an_unknown_event_is_refused(hooks, names):
    with pytest.raises(ValueError, match="participant_joined"):
        hooks.on(*names)


def test_events_are_those_of_the_contract():
    names = {name.removeprefix("WEBHOOK_EVENT_TYPE_").lower() for name in WebhookEventType.keys()}  # noqa: SIM118
    assert set(get_args(EventType)) == names - {"unspecified"}


# --- failures: LiveKit sends it again ---


async def test_failed_handler_is_logged_and_makes_livekit_resend(http, hooks, service, seen, caplog):
    failures = [RuntimeError("the database is away")]

    @hooks.on("participant_joined")
    async def failing(event):
        if failures:
            raise failures.pop()

    answer = await deliver(http)
    assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
    assert "database" not in answer.text
    assert "the database is away" in caplog.text
    assert not service.acknowledged
    assert (await deliver(http)).status_code == 200
    assert (seen, service.acknowledged) == (["consult-1"] * 2, {BODY})


async def test_other_handlers_run_if_one_fails(http, hooks):
    seen = []

    @hooks.on("participant_joined")
    async def failing(event):
        raise RuntimeError

    @hooks.on("participant_joined")
    async def working(event):
        seen.append(event.room)

    assert (await deliver(http)).status_code == 503
    assert seen == ["consult-1"]


async def test_plain_handler_that_raises_stopiteration_has_failed(http, hooks):
    """In Python 3.11, waiting for a thread that raises it never ends."""
    hooks.on("participant_joined")(lambda _event: next(iter(())))
    async with asyncio.timeout(10):
        assert (await deliver(http)).status_code == 503


@pytest.mark.parametrize(
    "failure",
    [
        not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE"),
        not_verified("DEADLINE_EXCEEDED"),
        not_verified("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=3),
        not_verified("PERMISSION_DENIED", "PROJECT_NOT_PERMITTED"),
        not_verified("INVALID_ARGUMENT", "REQUEST_INVALID", violations={"project": "doesn't match"}),
        not_verified("UNAUTHENTICATED", "CERTIFICATE_EXPIRED"),
        not_verified("INVALID_ARGUMENT", "FIELD_UNKNOWN"),
        not_verified("UNIMPLEMENTED"),
        not_verified("INTERNAL", "INTERNAL"),
    ],
)
async def test_failed_verification_call_makes_livekit_resend(http, service, seen, failure):
    service.failure = failure
    answer = await deliver(http)
    assert (answer.status_code, seen) == (503, [])
    assert int(answer.headers["retry-after"]) >= 1
    assert "internal" not in answer.text


async def test_failed_acknowledgement_is_retried_once_without_the_handlers(http, service, seen, caplog):
    service.ack_failure = not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    answer = await deliver(http)
    assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
    assert [record.levelname for record in caplog.records if "can't acknowledge" in record.message] == ["ERROR"]
    service.ack_failure = None
    assert [(await deliver(http)).status_code for _ in range(2)] == [200, 200]
    assert (seen, service.acknowledged) == (["consult-1"], {BODY})


async def test_livekit_resends_once_while_acknowledgements_fail(http, service, seen):
    service.ack_failure = not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    assert [(await deliver(http)).status_code for _ in range(4)] == [503, 200, 200, 200]
    assert seen == ["consult-1"]


async def test_different_body_with_the_same_id_is_handled(http, service, seen):
    service.ack_failure = not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    assert [(await deliver(http, body)).status_code for body in (BODY, BODY + b" ")] == [503, 503]
    assert seen == ["consult-1"] * 2


async def test_failed_handler_runs_again_on_redelivery(http, hooks, service):
    runs = []

    @hooks.on("participant_joined")
    async def failing_first(event):
        runs.append(event.event_id)
        if len(runs) == 1:
            raise RuntimeError

    service.ack_failure = not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    assert [(await deliver(http)).status_code for _ in range(3)] == [503, 503, 200]
    assert len(runs) == 2


async def test_memory_of_failed_acknowledgements_is_bounded(service):
    receiver = WebhookReceiver(service)
    receiver.on_any(lambda _event: None)
    service.ack_failure = not_verified("UNAVAILABLE", "ACK_STORE_UNAVAILABLE")
    app = Starlette(routes=[Route(PATH, receiver)])
    async with calling(app) as http:
        for number in range(1100):
            await deliver(http, b"%d" % number)
        assert len(receiver._unacknowledged) == 1024
        assert (await deliver(http, b"1099")).status_code == 200


# --- forgeries ---


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (not_verified("INVALID_ARGUMENT", "SIGNATURE_INVALID"), 401),
        (not_verified("INVALID_ARGUMENT", "BODY_ALTERED"), 401),
        (not_verified("INVALID_ARGUMENT", "KEY_UNKNOWN"), 401),
        (not_verified("INVALID_ARGUMENT", "TOKEN_MALFORMED"), 401),
        (not_verified("INVALID_ARGUMENT", "BODY_NOT_JSON"), 401),
        (not_verified("INVALID_ARGUMENT", "REQUEST_INVALID"), 400),
        (not_verified("INVALID_ARGUMENT", "BODY_TOO_LARGE"), 413),
        (not_verified("RESOURCE_EXHAUSTED", message="Received message larger than max (9 vs. 4)"), 413),
    ],
)
async def test_forged_webhook_is_refused_permanently(http, service, seen, failure, status):
    service.failure = failure
    answer = await deliver(http)
    assert (answer.status_code, seen) == (status, [])
    assert not {"SIGNATURE", "KEY_UNKNOWN", "internal"} & set(answer.text.split())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        [("authorization", "a.b.c"), ("authorization", "d.e.f")],
        [("x-livekit-signature", "a.b.c"), ("x-livekit-signature", "d.e.f")],
    ],
)
async def test_delivery_must_have_exactly_one_signature(http, service, headers):
    answer = await deliver(http, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert not service.verified


async def test_second_header_is_used_only_without_authorization(http, service):
    await deliver(http, headers={"x-livekit-signature": "a.b.c"})
    await deliver(http, headers={"x-livekit-signature": "a.b.c", "authorization": "d.e.f"})
    assert [authorization for _, authorization, _ in service.verified] == ["a.b.c", "d.e.f"]


async def test_body_over_the_limit_is_refused_unread(http, service):
    assert (await deliver(http, b"x" * (1024 * 1024 + 1))).status_code == 413
    assert (await deliver(http, b"x", {**SIGNED, "content-encoding": "gzip"})).status_code == 415
    assert not service.verified


async def test_only_post_is_accepted(http, service):
    for method in ("GET", "PUT", "DELETE"):
        assert (await http.request(method, PATH, headers=SIGNED)).status_code == 405
    assert not service.verified


async def test_only_the_named_project_may_have_signed(service):
    app = FastAPI()
    app.include_router(webhook_router(service, project="beta", path="/hooks"))
    async with calling(app) as http:
        assert (await http.post("/hooks", content=BODY, headers=SIGNED)).status_code == 200
    assert service.verified[0][2] == "beta"


async def test_disconnected_sender_leaves_nothing_behind(service):
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", b"a.b.c")]
    await WebhookReceiver(service)({"type": "http", "method": "POST", "headers": headers}, receive, send)
    assert (sent[0]["status"], service.verified) == (400, [])


async def test_body_that_does_not_arrive_makes_livekit_resend(service, monkeypatch):
    """This process may have been too busy to read it."""
    monkeypatch.setattr("livekit_auth._web.bodies.READ_SECONDS", 0.01)

    async def silence():
        await asyncio.sleep(5)
        yield b""

    answer = await WebhookReceiver(service).receive([(b"authorization", b"a.b.c")], silence())
    assert (answer.status, service.verified) == (503, [])
    assert int(answer.headers["retry-after"]) >= 1


UNUSED: Any = None


async def test_receiver_supports_only_http(service):
    with pytest.raises(RuntimeError, match="websocket"):
        await WebhookReceiver(service)({"type": "websocket"}, UNUSED, UNUSED)


async def test_signatures_are_not_logged(http, service, seen, caplog):
    caplog.set_level(logging.DEBUG)
    await deliver(http)
    service.failure = not_verified("INVALID_ARGUMENT", "SIGNATURE_INVALID")
    await deliver(http)
    assert "SIGNATURE_INVALID" in caplog.text
    assert SIGNED["authorization"] not in caplog.text


# --- faults of the application ---


def test_generator_handler_is_refused(hooks):
    """Calling it only creates a generator: the event would be acknowledged but not handled."""

    async def yields(event):
        yield event

    def also_yields(event):
        yield event

    for handler in (yields, also_yields, functools.partial(yields)):
        for register in (hooks.on("participant_joined"), hooks.on_any):
            with pytest.raises(TypeError, match="yield"):
                register(handler)


async def test_handler_whose_own_work_was_cancelled_has_failed(http, hooks, service):
    seen = []

    @hooks.on("participant_joined")
    async def cancelled(_):
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    @hooks.on("participant_joined")
    async def fine(event):
        seen.append(event.room)

    assert (await deliver(http)).status_code == 503
    assert (seen, service.acknowledged) == (["consult-1"], set())


async def test_arguments_of_a_partial_handler_are_not_logged(http, hooks, caplog):
    def store(event, password):
        raise OSError(event.room)

    hooks.on_any(functools.partial(store, password="hunter2"))
    assert (await deliver(http)).status_code == 503
    assert "failed for participant_joined" in caplog.text
    assert "hunter2" not in caplog.text


async def test_cancelled_receiver_acknowledges_nothing(service):
    receiver = WebhookReceiver(service)
    started = asyncio.Event()

    @receiver.on_any
    async def slow(_):
        started.set()
        await asyncio.sleep(60)

    async def body():
        yield BODY

    task = asyncio.create_task(receiver.receive([(b"authorization", b"t")], body()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.acknowledged == set()
