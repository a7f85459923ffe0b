"""A token server behind a login: `uvicorn token_server:app --app-dir examples`, with LIVEKIT_AUTH_* set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from livekit_auth import AuthClient
from livekit_auth.fastapi import Access, Asked, token_router

SESSIONS = {"session-of-ada": "ada", "session-of-bob": "bob"}  # REPLACE this and signed_in with your own login


def signed_in(session: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """The signed-in user's id."""
    if session.credentials not in SESSIONS:
        raise HTTPException(401, "sign in first")
    return SESSIONS[session.credentials]


def authorize(user: Annotated[str, Depends(signed_in)], asked: Asked) -> Access:
    """Any signed-in user may join a consultation, with their own identity and a display name of their choice."""
    room = asked.room_name or "consult-1"
    if not room.startswith("consult-"):
        raise HTTPException(403, "this room isn't yours")
    return Access(
        room=room, identity=f"user-{user}", user_id=user, name=asked.participant_name or user.title(), role="guest"
    )


client = AuthClient()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the connection to the service at shutdown."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(token_router(client, authorize=authorize))
