"""Webhooks as a real LiveKit server sends them, checked by a consumer that holds no secret."""

from __future__ import annotations

import dataclasses
import secrets

import pytest
import pytest_asyncio

from e2e.participants import joined, publishing
from livekit_auth import Denied, VerificationFailed
from livekit_auth.v1.room_config_pb2 import RoomConfig

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIFE_OF_A_ROOM = [
    "room_started",
    "participant_joined",
    "track_published",
    "track_unpublished",
    "participant_left",
    "room_finished",
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def life_of_a_room(callers, listener):
    """All webhooks of a room that somebody came to, said something in and left; LiveKit closed it a second later."""
    room, brief = f"consult-{secrets.token_hex(4)}", RoomConfig(departure_timeout=1)
    token = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=brief)
    async with joined(token) as here, publishing(here):
        await listener.wait_for(room, "track_published")
    await listener.wait_for(room, "room_finished")
    return listener.of(room)


async def test_the_life_of_a_room_arrives_and_is_verified(deployment, callers, life_of_a_room):
    verified = [await _verified(callers.webhooks, delivery) for delivery in life_of_a_room]
    assert [event.type for event in verified] == LIFE_OF_A_ROOM
    assert {event.room for event in verified} == {life_of_a_room[0].room}
    assert {event.participant_identity for event in verified} == {"", "user-1"}
    assert {(event.key_id, event.project) for event in verified} == {(deployment.key.id, "default")}
    assert len({event.event_id for event in verified}) == len(LIFE_OF_A_ROOM)
    assert all(event.create_time for event in verified)


async def test_the_whole_event_can_be_read_from_the_verified_bytes(callers, life_of_a_room):
    event = await _verified(callers.webhooks, life_of_a_room[LIFE_OF_A_ROOM.index("track_published")])
    whole = event.parse()
    assert (whole.event, whole.id, whole.room.name) == ("track_published", event.event_id, event.room)
    assert whole.track.name == "tone"


async def test_verifying_consumes_nothing_and_acknowledging_does(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    first, second = [await _verified(callers.webhooks, delivery) for _ in range(2)]
    assert (first.duplicate_status, second.duplicate_status) == ("new", "new")
    await callers.webhooks.ack_webhook(second)
    assert (await _verified(callers.webhooks, delivery)).is_duplicate


async def test_one_consumer_does_not_acknowledge_for_another(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    await callers.webhooks.ack_webhook(await _verified(callers.webhooks, delivery))
    assert not (await _verified(callers.archive, delivery)).is_duplicate


async def test_a_webhook_that_livekit_sends_again_is_a_duplicate(callers, listener, room):
    listener.failing.add(room)
    delivery = await _some_webhook(callers, listener, room)
    await callers.webhooks.ack_webhook(await _verified(callers.webhooks, delivery))
    again = await listener.wait_for(room, delivery.event, times=2)
    assert again == delivery
    assert (await _verified(callers.webhooks, again)).is_duplicate


async def test_an_altered_body_is_refused(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    altered = dataclasses.replace(delivery, body=delivery.body.replace(room.encode(), b"board-1"))
    assert await _refusal(callers.webhooks, altered) == "BODY_ALTERED"


async def test_a_body_that_was_parsed_and_serialised_again_is_refused(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    assert await _refusal(callers.webhooks, dataclasses.replace(delivery, body=delivery.body + b"\n")) == "BODY_ALTERED"


async def test_the_signature_of_another_webhook_is_refused(callers, life_of_a_room):
    first, *_, last = life_of_a_room
    swapped = dataclasses.replace(first, authorization=last.authorization)
    assert await _refusal(callers.webhooks, swapped) == "BODY_ALTERED"


async def test_an_access_token_signs_no_webhook_and_a_webhooks_token_gives_no_access(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    forged = dataclasses.replace(delivery, authorization=issued.token)
    assert await _refusal(callers.webhooks, forged) == "NOT_A_WEBHOOK_TOKEN"
    with pytest.raises(VerificationFailed) as refused:
        await callers.gateway.verify_token(delivery.authorization)
    assert refused.value.reason == "NOT_AN_ACCESS_TOKEN"


async def test_who_may_not_verify_webhooks_learns_nothing_of_them(callers, listener, room):
    delivery = await _some_webhook(callers, listener, room)
    with pytest.raises(Denied) as denied:
        await callers.web.verify_webhook(delivery.body, delivery.authorization)
    assert denied.value.reason == "PROJECT_NOT_PERMITTED"


async def test_every_webhook_of_the_run_is_verified(callers, listener, life_of_a_room):
    """Those of the other tests in this folder too, when they ran before."""
    assert len(listener.deliveries) >= len(life_of_a_room)
    for delivery in list(listener.deliveries):
        event = await _verified(callers.archive, delivery)
        assert (event.type, event.room) == (delivery.event, delivery.room)
    assert set(LIFE_OF_A_ROOM) <= {delivery.event for delivery in listener.deliveries}


async def _some_webhook(callers, listener, room):
    token = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with joined(token):
        return await listener.wait_for(room, "room_started")


async def _verified(client, delivery):
    return await client.verify_webhook(delivery.body, delivery.authorization)


async def _refusal(client, delivery):
    with pytest.raises(VerificationFailed) as refused:
        await _verified(client, delivery)
    return refused.value.reason
