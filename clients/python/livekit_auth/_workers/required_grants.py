"""The grants that each call to LiveKit's API needs, so that the log can say what a role lacks.

Sources: livekit-server's pkg/service (roomservice.go, auth.go, and sip.go for SIP). docs/agents.md has the same table.
"""

from __future__ import annotations

REFUSED = frozenset({401, 403})
"""The HTTP status codes with which LiveKit rejects a token."""

_CREATE, _ADMIN, _SIP = "video.room_create", "video.room_admin", "sip.admin"
_METHODS = {
    "RoomService/CreateRoom": (_CREATE,),
    "RoomService/DeleteRoom": (_CREATE,),
    "RoomService/ListRooms": ("video.room_list",),
    "RoomService/ForwardParticipant": (_ADMIN, "video.destination_room"),
    "RoomService/MoveParticipant": (_ADMIN, "video.destination_room"),
    "SIP/CreateSIPParticipant": ("sip.call",),
    "SIP/TransferSIPParticipant": (_ADMIN, "sip.call"),
}
_SERVICES = {
    "RoomService": (_ADMIN,),
    "AgentDispatchService": (_ADMIN,),
    "Egress": ("video.room_record",),
    "Ingress": ("video.ingress_admin",),
    "SIP": (_SIP,),
}


def needs(method: str) -> tuple[str, ...]:
    """The grants that a method such as "livekit.RoomService/DeleteRoom" needs; () if the method is unknown."""
    name = method.removeprefix("livekit.")
    return _METHODS.get(name, _SERVICES.get(name.partition("/")[0], ()))


def refusal(path: str, status: int, role: str) -> str:
    """The message for a token that LiveKit rejected in a call to a path such as "/twirp/livekit.SIP/…".

    Grants and powers have the policy's names. A grant needs the power of the same name (sip.call: sip).
    """
    method = path.rpartition("/twirp/")[2]
    wanted = needs(method)
    if not wanted:
        return f"LiveKit refused {_short(method)} with HTTP status {status}: role {role!r} isn't sufficient"
    powers = sorted({grant.removeprefix("video.").partition(".")[0] for grant in wanted})
    room = " for that room" if _ADMIN in wanted else ""
    return (
        f"LiveKit refused {_short(method)} with HTTP status {status}: it needs {' and '.join(wanted)}{room}; check "
        f"that role {role!r} has it, and that the policy entry has the powers [{', '.join(powers)}]"
    )


def _short(method: str) -> str:
    return method.removeprefix("livekit.").replace("/", ".")[:80]
