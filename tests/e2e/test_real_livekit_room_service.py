"""What a real LiveKit server lets the bearer of an issued token do to rooms, and to which rooms."""

from __future__ import annotations

import pytest
from livekit.api import LiveKitAPI, ServerError
from livekit.protocol import room as proto
from livekit.protocol.models import ParticipantInfo

from e2e.participants import eventually, joined, publishing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_rooms_are_listed_with_room_list(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    token = await callers.operations.issue_token(role="directory")
    async with joined(guest), _room_service(token) as livekit:
        listed = await livekit.room.list_rooms(proto.ListRoomsRequest())
    assert room in [found.name for found in listed.rooms]


@pytest.mark.parametrize("role", ["guest", "moderator", "caretaker"])
async def test_rooms_are_not_listed_without_it(callers, room, role):
    async with _room_service(await _token(callers, role, room)) as livekit:
        await _assert_refused(livekit.room.list_rooms(proto.ListRoomsRequest()))


async def test_a_moderator_lists_mutes_and_removes_participants_in_its_room(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    token = await callers.moderation.issue_token(room=room, role="moderator")
    async with joined(guest) as speaker, publishing(speaker) as published, _room_service(token) as livekit:
        listed = await livekit.room.list_participants(proto.ListParticipantsRequest(room=room))
        assert [participant.identity for participant in listed.participants] == ["user-1"]

        mute = proto.MuteRoomTrackRequest(room=room, identity="user-1", track_sid=published.sid, muted=True)
        assert (await livekit.room.mute_published_track(mute)).track.muted

        await livekit.room.remove_participant(proto.RoomParticipantIdentity(room=room, identity="user-1"))
        await eventually(lambda: not speaker.isconnected(), "the guest has been put out")


async def test_livekit_tells_a_moderator_what_the_token_said_of_somebody(callers, room):
    bot = await callers.booking.issue_token(
        room=room, identity="bot-1", role="guest", name="Zoë", metadata="m", attributes={"desk": "2"}, kind="agent"
    )
    token = await callers.moderation.issue_token(room=room, role="moderator")
    async with joined(bot), _room_service(token) as livekit:
        asked = proto.RoomParticipantIdentity(room=room, identity="bot-1")
        told = await livekit.room.get_participant(asked)
    assert (told.name, told.metadata, dict(told.attributes)) == ("Zoë", "m", {"desk": "2"})
    assert told.kind == ParticipantInfo.Kind.AGENT
    permission = told.permission
    assert (permission.can_publish, permission.can_subscribe, permission.can_publish_data) == (True, True, False)
    assert not permission.hidden


async def test_a_moderator_changes_metadata_in_its_room(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    token = await callers.moderation.issue_token(room=room, role="moderator")
    async with joined(guest) as here, _room_service(token) as livekit:
        await livekit.room.update_room_metadata(proto.UpdateRoomMetadataRequest(room=room, metadata="on air"))
        await eventually(lambda: here.metadata == "on air", "the room has the metadata")

        update = proto.UpdateParticipantRequest(room=room, identity="user-1", metadata="raised a hand")
        await livekit.room.update_participant(update)
        await eventually(lambda: here.local_participant.metadata == "raised a hand", "the guest has the metadata")


async def test_a_moderator_is_refused_in_every_other_room(callers, room):
    other = f"{room}-other"
    guest = await callers.web.issue_token(room=other, identity="user-1", role="guest")
    token = await callers.moderation.issue_token(room=room, role="moderator")
    async with joined(guest) as there, publishing(there) as published, _room_service(token) as livekit:
        service = livekit.room
        mute = proto.MuteRoomTrackRequest(room=other, identity="user-1", track_sid=published.sid, muted=True)
        await _assert_refused(service.list_participants(proto.ListParticipantsRequest(room=other)))
        await _assert_refused(service.mute_published_track(mute))
        await _assert_refused(service.remove_participant(proto.RoomParticipantIdentity(room=other, identity="user-1")))
        await _assert_refused(service.update_room_metadata(proto.UpdateRoomMetadataRequest(room=other, metadata="x")))
        assert there.isconnected()


async def test_rooms_are_created_and_deleted_with_room_create(callers, room):
    directory = await callers.operations.issue_token(role="directory")
    token = await callers.operations.issue_token(role="caretaker")
    async with _room_service(token) as livekit, _room_service(directory) as listing:
        created = await livekit.room.create_room(proto.CreateRoomRequest(name=room, empty_timeout=60))
        assert created.name == room
        await livekit.room.delete_room(proto.DeleteRoomRequest(room=room))
        left = await listing.room.list_rooms(proto.ListRoomsRequest(names=[room]))
        assert not left.rooms


async def test_room_create_deletes_any_room_which_is_why_it_is_only_given_with_any_room(callers, room):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    token = await callers.operations.issue_token(role="caretaker", room=f"{room}-other")
    async with joined(guest) as here, _room_service(token) as livekit:
        await livekit.room.delete_room(proto.DeleteRoomRequest(room=room))
        await eventually(lambda: not here.isconnected(), "the guest has been put out")


@pytest.mark.parametrize("role", ["guest", "moderator", "directory"])
async def test_rooms_are_neither_created_nor_deleted_without_it(callers, room, role):
    async with _room_service(await _token(callers, role, room)) as livekit:
        await _assert_refused(livekit.room.create_room(proto.CreateRoomRequest(name=room)))
        await _assert_refused(livekit.room.delete_room(proto.DeleteRoomRequest(room=room)))


async def test_a_guest_manages_nothing_in_its_own_room(callers, room):
    token = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    async with joined(token), _room_service(token) as livekit:
        await _assert_refused(livekit.room.list_participants(proto.ListParticipantsRequest(room=room)))
        await _assert_refused(
            livekit.room.remove_participant(proto.RoomParticipantIdentity(room=room, identity="user-1"))
        )


def _room_service(token):
    """LiveKit's own client for its server API, with nothing but a token."""
    return LiveKitAPI.with_token(token.token, token.url)


async def _token(callers, role, room):
    match role:
        case "guest":
            return await callers.web.issue_token(room=room, identity="user-1", role=role)
        case "moderator":
            return await callers.moderation.issue_token(room=room, role=role)
        case _:
            return await callers.operations.issue_token(role=role)


async def _assert_refused(call):
    with pytest.raises(ServerError) as refused:
        await call
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
