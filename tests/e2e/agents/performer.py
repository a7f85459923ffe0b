"""A worker without a secret that plays a tone, and says in its attributes what came of its calls to LiveKit."""

import asyncio
import os

from livekit import rtc
from livekit.agents import JobContext, cli
from livekit.api import ListParticipantsRequest, ListRoomsRequest, ServerError

from livekit_auth import Unavailable
from livekit_auth.agents import AgentServer

# LiveKit gives no job to a worker that says it is fully busy, which the machine of a test may be.
server = AgentServer(role="agent-worker", api_role="agent-api", initialize_process_timeout=60, load_fnc=lambda: 0.0)


@server.rtc_session(agent_name="performer")
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    audio = rtc.AudioSource(48_000, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", audio)
    await ctx.room.local_participant.publish_track(track)
    playing = asyncio.create_task(play(audio))

    async def stop_playing() -> None:
        playing.cancel()

    ctx.add_shutdown_callback(stop_playing)
    rooms = ctx.api.room
    try:
        here = await rooms.list_participants(ListParticipantsRequest(room=ctx.room.name))
    except Unavailable:
        return  # the tone plays on
    found = {
        "own_room": " ".join(sorted(p.identity for p in here.participants)),
        "other_room": await refusal(rooms.list_participants(ListParticipantsRequest(room="consult-of-others"))),
        "all_rooms": await refusal(rooms.list_rooms(ListRoomsRequest())),
        "credentials": " ".join(sorted(n for n in os.environ if n.startswith("LIVEKIT_") and "API" in n)) or "none",
    }
    await ctx.room.local_participant.set_attributes(found)


async def refusal(call) -> str:
    try:
        await call
    except ServerError as error:
        return f"HTTP {error.status}"
    return "permitted"


async def play(audio: rtc.AudioSource) -> None:
    loud = rtc.AudioFrame((8000).to_bytes(2, "little") * 480, 48_000, 1, 480)
    quiet = rtc.AudioFrame(bytes(960), 48_000, 1, 480)
    while True:
        for frame in (loud, quiet):
            await audio.capture_frame(frame)


if __name__ == "__main__":
    cli.run_app(server)
