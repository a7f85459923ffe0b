"""Recording, ingress and SIP: how far a token gets at a real LiveKit server that has none of these services connected.

LiveKit looks at the token first. So a token that suffices is told that the service isn't connected, and any other is
refused; what the services do with a permitted request isn't tested here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from livekit.api import LiveKitAPI, ServerError
from livekit.protocol import egress, ingress, sip
from livekit.protocol import room as rooms

from livekit_auth import Denied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "consult-services"

# What is asked for, the roles that suffice for it, and how.
CALLS: dict[str, tuple[set[str], Callable[[LiveKitAPI], Awaitable[object]]]] = {
    "record a room": (
        {"recording"},
        lambda livekit: livekit.egress.start_room_composite_egress(
            egress.RoomCompositeEgressRequest(
                room_name=ROOM, file_outputs=[egress.EncodedFileOutput(filepath="recording.mp4")]
            )
        ),
    ),
    "list recordings": ({"recording"}, lambda livekit: livekit.egress.list_egress(egress.ListEgressRequest())),
    "take a stream in": (
        {"ingress"},
        lambda livekit: livekit.ingress.create_ingress(
            ingress.CreateIngressRequest(
                input_type=ingress.IngressInput.RTMP_INPUT,
                name="stream",
                room_name=ROOM,
                participant_identity="stream-1",
            )
        ),
    ),
    "list streams": ({"ingress"}, lambda livekit: livekit.ingress.list_ingress(ingress.ListIngressRequest())),
    "list trunks": (
        {"trunks"},
        lambda livekit: livekit.sip.list_outbound_trunk(sip.ListSIPOutboundTrunkRequest()),
    ),
    "call a telephone": (
        {"calling", "transfer"},
        lambda livekit: livekit.sip.create_sip_participant(
            sip.CreateSIPParticipantRequest(
                sip_trunk_id="ST_1", sip_call_to="+15551234", room_name=ROOM, participant_identity="phone-1"
            )
        ),
    ),
    "transfer a call": (
        {"transfer"},
        lambda livekit: livekit.sip.transfer_sip_participant(
            sip.TransferSIPParticipantRequest(
                room_name=ROOM, participant_identity="phone-1", transfer_to="tel:+15551234"
            )
        ),
    ),
}
NO_ROOM = {"trunks", "calling"}  # a token without a video grant can't name one
ROLES = ("recording", "ingress", "trunks", "calling", "transfer")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_gets_as_far_as_its_grants(callers, role, call):
    suffices, ask = CALLS[call]
    issued = await callers.studio.issue_token(role=role, room="" if role in NO_ROOM else ROOM)
    error = await _refusal(issued, ask)
    if role in suffices:
        assert error.code != "unauthenticated", error.message
    else:
        assert (error.status, error.code) == (401, "unauthenticated")


@pytest.mark.parametrize("call", CALLS)
async def test_a_guest_can_ask_for_none_of_it(callers, call):
    issued = await callers.web.issue_token(role="guest", room=ROOM, identity="user-1")
    assert (await _refusal(issued, CALLS[call][1])).code == "unauthenticated"


async def test_a_transfer_is_refused_in_another_room(callers):
    issued = await callers.studio.issue_token(role="transfer", room=f"{ROOM}-other")
    assert (await _refusal(issued, CALLS["transfer a call"][1])).code == "unauthenticated"


@pytest.mark.parametrize("role", ROLES)
async def test_who_has_no_such_role_is_issued_no_such_token(callers, role):
    with pytest.raises(Denied):
        await callers.web.issue_token(role=role, room=ROOM)


async def test_a_room_admins_token_manages_its_room_and_records_nothing(callers):
    issued = await callers.moderation.issue_token(role="moderator", room=ROOM)
    async with LiveKitAPI.with_token(issued.token, issued.url) as livekit:
        assert not (await livekit.room.list_participants(rooms.ListParticipantsRequest(room=ROOM))).participants
    assert (await _refusal(issued, CALLS["record a room"][1])).code == "unauthenticated"


async def _refusal(issued, ask) -> ServerError:
    """What LiveKit answers; with no service behind it, it is never a success."""
    async with LiveKitAPI.with_token(issued.token, issued.url) as livekit:
        with pytest.raises(ServerError) as refused:
            await ask(livekit)
    return refused.value
