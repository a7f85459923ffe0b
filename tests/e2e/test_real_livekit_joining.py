"""What people can do in a room with an issued token, and what a real LiveKit server keeps them from."""

from __future__ import annotations

from datetime import timedelta

import pytest
from livekit import rtc
from livekit.protocol.models import TrackSource

from e2e import tokens
from e2e.participants import RefusedError, all_joined, eventually, hears_something, joined, publishing
from e2e.secrecy import Forged
from e2e.signalling import signalling
from livekit_auth import InvalidRequest, TokenRequest
from livekit_auth.v1 import grants_pb2 as grants
from livekit_auth.v1.room_config_pb2 import RoomConfig

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_participant_joins_with_an_issued_token(callers, room):
    token = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with joined(token) as here:
        assert here.name == room
        assert here.local_participant.identity == "user-1"


async def test_a_second_participant_sees_and_hears_what_the_first_publishes(callers, room):
    first = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    second = await callers.web.issue_token(room=room, identity="user-2", role="guest")
    async with all_joined(first, second) as (speaker, listener), publishing(speaker) as published:
        await eventually(lambda: _track(listener, "user-1", published.sid), "the track is received")
        assert await hears_something(_track(listener, "user-1", published.sid))


async def test_participants_see_what_the_token_says_of_somebody(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    bot = await callers.booking.issue_token(
        room=room,
        identity="bot-1",
        role="guest",
        name="Interpreter, Zoë",
        metadata='{"languages": ["de", "fr"]}',
        attributes={"desk": "2", "shift": "späť"},
        kind="agent",
    )
    async with all_joined(guest, bot) as (here, _):
        await eventually(lambda: "bot-1" in here.remote_participants, "the bot is there")
        seen = here.remote_participants["bot-1"]
        assert seen.name == "Interpreter, Zoë"
        assert seen.metadata == '{"languages": ["de", "fr"]}'
        assert seen.attributes == {"desk": "2", "shift": "späť"}
        assert seen.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


async def test_tokens_that_were_issued_together_are_as_good(callers, room):
    people = ["user-1", "user-2"]
    issued = await callers.web.issue_tokens(
        [TokenRequest(room=room, identity=identity, role="guest") for identity in people]
    )
    for token, identity in zip(issued, people, strict=True):
        async with signalling(token) as signals:
            join = (await signals.receive("join")).join
            assert (join.room.name, join.participant.identity) == (room, identity)


async def test_asking_for_another_room_ends_in_the_room_of_the_token(callers, room):
    token = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with signalling(token, room="consult-somewhere-else") as signals:
        assert (await signals.receive("join")).join.room.name == room


async def test_an_expired_token_is_refused(deployment, callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest", ttl=timedelta(seconds=1))
    assert issued.expire_time - issued.issue_time == timedelta(seconds=1)
    await _assert_refused(tokens.expired(deployment.key, room, seconds_ago=120), issued.url)


async def test_a_token_of_an_unknown_key_is_refused(callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    await _assert_refused(tokens.of_an_unknown_key(room), issued.url)


async def test_a_token_that_was_tampered_with_is_refused(callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    await _assert_refused(tokens.tampered(issued.token, room="board-1"), issued.url)


async def test_a_join_token_without_a_room_is_not_issued(callers):
    with pytest.raises(InvalidRequest) as refused:
        await callers.web.issue_token(identity="user-1", role="guest")
    assert [violation.field for violation in refused.value.violations] == ["room"]


async def test_the_reason_is_that_livekit_reads_it_as_a_token_for_any_room(deployment, callers, room):
    issued = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    forged = deployment.key.sign(tokens.guest_claims(room, video={"roomJoin": True}))
    async with signalling(Forged(forged, issued.url), room="board-1") as signals:
        assert (await signals.receive("join")).join.room.name == "board-1"


async def test_a_listener_cannot_publish(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    listener = await callers.web.issue_token(room=room, identity="user-2", role="listener")
    async with signalling(guest) as signals:
        assert await signals.may_publish(TrackSource.MICROPHONE)
    async with signalling(listener) as signals:
        assert not await signals.may_publish(TrackSource.MICROPHONE)


async def test_only_the_sources_in_the_token_can_be_published(callers, room):
    microphone = grants.VideoGrant(
        room_join=True, can_publish_data=False, can_publish_sources=[grants.TRACK_SOURCE_MICROPHONE]
    )
    token = await callers.web.issue_token(room=room, identity="user-1", grants=grants.Grants(video=microphone))
    async with signalling(token) as signals:
        assert not await signals.may_publish(TrackSource.SCREEN_SHARE_AUDIO)
        assert await signals.may_publish(TrackSource.MICROPHONE)


async def test_who_may_not_subscribe_sees_a_track_and_does_not_receive_it(callers, room):
    deaf = grants.Grants(video=grants.VideoGrant(room_join=True, can_subscribe=False, can_publish_data=False))
    first = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    second = await callers.web.issue_token(room=room, identity="user-2", role="guest")
    third = await callers.web.issue_token(room=room, identity="user-3", grants=deaf)
    async with all_joined(first, second, third) as (speaker, receiver, bystander), publishing(speaker) as published:
        await eventually(lambda: _track(receiver, "user-1", published.sid), "the second receives the track")
        await eventually(
            lambda: published.sid in _publications(bystander, "user-1"), "the third sees that there is one"
        )
        assert _track(bystander, "user-1", published.sid) is None


async def test_who_may_not_publish_data_is_not_heard(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    host = await callers.web.issue_token(room=room, identity="user-2", role="host")
    listener = await callers.web.issue_token(room=room, identity="user-3", role="listener")
    async with all_joined(guest, host, listener) as (muted, heard, here):
        received = []
        here.on("data_received", lambda packet: received.append(packet.data))
        await muted.local_participant.publish_data(b"from the guest")
        await heard.local_participant.publish_data(b"from the host")
        await eventually(lambda: received, "data arrives")
        assert received == [b"from the host"]


async def test_only_who_may_changes_its_own_metadata(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    editor = await callers.web.issue_token(room=room, identity="user-2", role="editor")
    async with signalling(guest) as signals:
        assert not await signals.may_update_metadata()
    async with signalling(editor) as signals:
        assert await signals.may_update_metadata()


async def test_a_hidden_participant_sees_the_others_and_is_not_seen(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    observer = await callers.quality.issue_token(room=room, identity="quality-1", role="observer")
    latecomer = await callers.web.issue_token(room=room, identity="user-2", role="guest")
    async with all_joined(guest, observer) as (seen, hidden), joined(latecomer) as later:
        await eventually(lambda: {"user-1", "user-2"} <= hidden.remote_participants.keys(), "the observer sees both")
        await eventually(lambda: "user-2" in seen.remote_participants, "the guest sees the latecomer")
        assert "quality-1" not in seen.remote_participants
        assert "quality-1" not in later.remote_participants


async def test_the_room_is_set_up_as_the_first_token_says(callers, room):
    alone = RoomConfig(max_participants=1, empty_timeout=30)
    first = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=alone)
    second = await callers.web.issue_token(room=room, identity="user-2", role="guest")
    async with joined(first):
        with pytest.raises(RefusedError):
            async with joined(second):
                pytest.fail("the room takes one participant")


async def test_livekit_does_not_count_an_agent_which_is_why_the_kind_is_a_power(callers, room):
    alone = RoomConfig(max_participants=1)
    first = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=alone)
    bot = await callers.booking.issue_token(room=room, identity="bot-1", role="guest", kind="agent")
    async with joined(first) as here, joined(bot):
        await eventually(lambda: "bot-1" in here.remote_participants, "the bot is there too")


async def test_an_older_livekit_refuses_a_token_whose_room_config_it_does_not_know_whole(callers, room):
    """LiveKit 1.8 has no metadata in a room configuration. It lets nobody in rather than leave it out."""
    newer = RoomConfig(metadata="consultation")
    token = await callers.booking.issue_token(room=room, identity="user-1", role="guest", room_config=newer)
    await _assert_refused(token.token, token.url)


def _publications(room, identity):
    """What somebody publishes, by id, as this participant sees it; empty when it doesn't see the other."""
    publisher = room.remote_participants.get(identity)
    return publisher.track_publications if publisher else {}


def _track(room, identity, sid):
    """The track as this participant receives it, None when it doesn't."""
    publication = _publications(room, identity).get(sid)
    return publication and publication.track


async def _assert_refused(token: str, url: str) -> None:
    with pytest.raises(RefusedError, match="401 Unauthorized"):
        async with joined(Forged(token, url)):
            pytest.fail("LiveKit let it in")
