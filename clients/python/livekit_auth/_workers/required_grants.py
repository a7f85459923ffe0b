"""What LiveKit wants to see in the token of a call to its API, so that a refusal can say what the role lacks.

Sources: livekit-server's pkg/service (roomservice.go, auth.go), and for SIP pkg/service/sip.go; docs/agents.md has the
same as a table.
"""

from __future__ import annotations

REFUSED = frozenset({401, 403})
"""HTTP statuses with which LiveKit refuses a token."""

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
    """The grants that a method such as "livekit.RoomService/DeleteRoom" needs; () when it isn't known."""
    name = method.removeprefix("livekit.")
    return _METHODS.get(name, _SERVICES.get(name.partition("/")[0], ()))


def refusal(path: str, status: int, role: str) -> str:
    """What to say when LiveKit refused the token of a call to a path such as "/twirp/livekit.SIP/…".

    The names are those of the policy: a grant is a power of the same name (sip.call: sip), but for the room's own.
    """
    method = path.rpartition("/twirp/")[2]
    wanted = needs(method)
    if not wanted:
        return f"LiveKit refused {_short(method)} with HTTP status {status}: role {role!r} doesn't suffice for it"
    powers = sorted({grant.removeprefix("video.").partition(".")[0] for grant in wanted})
    room = " for that room" if _ADMIN in wanted else ""
    return (
        f"LiveKit refused {_short(method)} with HTTP status {status}: it needs {' and '.join(wanted)}{room}; see that "
        f"role {role!r} has it, and the policy's entry the powers [{', '.join(powers)}]"
    )


def _short(method: str) -> str:
    return method.removeprefix("livekit.").replace("/", ".")[:80]
