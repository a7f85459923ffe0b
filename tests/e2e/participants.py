"""People in a room: joining with a token through LiveKit's own client, and publishing something to hear."""

from __future__ import annotations

import asyncio
import math
from array import array
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from livekit import rtc

from e2e.secrecy import redacted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from e2e.secrecy import Bearer

SAMPLE_RATE = 48_000
FRAME = 480  # samples: 10 ms
PITCH = 440  # Hz
PATIENCE = 20  # seconds


class RefusedError(Exception):
    """LiveKit didn't let the bearer of a token in; the message has LiveKit's reason, without the token."""


@asynccontextmanager
async def joined(token: Bearer) -> AsyncIterator[rtc.Room]:
    """Is in the token's room until the block ends. Raises RefusedError."""
    room = rtc.Room()
    try:
        async with asyncio.timeout(PATIENCE):
            await room.connect(token.url, token.token)
    except rtc.ConnectError as error:
        raise RefusedError(redacted(error.message)) from None  # its traceback would show the token
    try:
        yield room
    finally:
        async with asyncio.timeout(PATIENCE):
            await room.disconnect()


@asynccontextmanager
async def all_joined(*tokens: Bearer) -> AsyncIterator[list[rtc.Room]]:
    """Has everybody join at once: each takes a second, which LiveKit's transport waits for."""
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(*(stack.enter_async_context(joined(token)) for token in tokens))


@asynccontextmanager
async def publishing(room: rtc.Room) -> AsyncIterator[rtc.LocalTrackPublication]:
    """Publishes a tone until the block ends."""
    audio = rtc.AudioSource(SAMPLE_RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", audio)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    async with asyncio.timeout(PATIENCE):
        publication = await room.local_participant.publish_track(track, options)
    playing = asyncio.create_task(_play(audio))
    try:
        yield publication
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            if room.isconnected():  # the client never answers when it isn't
                await room.local_participant.unpublish_track(publication.sid)
            await audio.aclose()


async def _play(audio: rtc.AudioSource) -> None:
    """A second of a sine tone, again and again; `capture_frame` waits while the source's queue is full."""
    wave = array("h", (int(8000 * math.sin(2 * math.pi * PITCH * i / SAMPLE_RATE)) for i in range(SAMPLE_RATE)))
    while True:
        for start in range(0, SAMPLE_RATE, FRAME):
            frame = rtc.AudioFrame(wave[start : start + FRAME].tobytes(), SAMPLE_RATE, 1, FRAME)
            await audio.capture_frame(frame)


async def hears_something(track: rtc.Track) -> bool:
    """Whether a received audio track turns out not to be silent in time."""
    stream = rtc.AudioStream(track)
    try:
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if max(event.frame.data) > 1000:
                    return True
    except TimeoutError:
        pass
    finally:
        await stream.aclose()
    return False


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Waits until a condition holds. Raises AssertionError with what didn't happen."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the client's state has no event of its own
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"after {PATIENCE} s still not so: {what}") from None
