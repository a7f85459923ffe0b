"""A room in the browser: a login, LiveKit's token endpoint behind it, and the page.

Build the page once, then serve it, with LIVEKIT_AUTH_* set:

    npm --prefix examples/web_room ci && npm --prefix examples/web_room run build
    uvicorn web_room.app:app --app-dir examples
"""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Body, Cookie, Depends, FastAPI, HTTPException, Request, Response
from fastapi.staticfiles import StaticFiles

from livekit_auth import AuthClient
from livekit_auth.fastapi import Access, Asked, token_router

HERE = Path(__file__).parent
SESSION = "session"
# LiveKit's client opens a WebSocket. If that fails, it asks the same server over HTTP for the reason. Without TLS, only
# a LiveKit server on this machine is allowed, on any port. Narrow connect-src to your LiveKit server:
# wss://HOST https://HOST.
LIVEKIT = "wss: https: " + " ".join(f"{s}://{host}:*" for s in ("ws", "http") for host in ("127.0.0.1", "localhost"))
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
    f"worker-src 'self' blob:; connect-src 'self' {LIVEKIT}; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

# --- REPLACE this part with your own login: it lets anyone in under any name, and a restart signs all users out ---

sessions: dict[str, str] = {}


def signed_in(session: Annotated[str, Cookie()] = "") -> str:
    """The signed-in user's id."""
    if session not in sessions:
        raise HTTPException(401, "sign in first")
    return sessions[session]


def sign_in(user: Annotated[str, Body(embed=True)], request: Request, response: Response) -> dict[str, str]:
    """Signs a user in: a random session id in a cookie that scripts and other sites can't use."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", user):
        raise HTTPException(400, "a name has up to 32 small letters, digits and hyphens, a letter first")
    session = secrets.token_urlsafe(32)
    sessions[session] = user
    secure = request.url.scheme == "https"
    response.set_cookie(SESSION, session, httponly=True, samesite="strict", secure=secure)
    return {"user": user}


def sign_out(response: Response, session: Annotated[str, Cookie()] = "") -> dict[str, str]:
    """Ends the session."""
    sessions.pop(session, None)
    response.delete_cookie(SESSION)
    return {}


# --- end of REPLACE ---


def authorize(user: Annotated[str, Depends(signed_in)], asked: Asked) -> Access:
    """Permits any room except the board's, with the user's own identity. The service's policy decides in the end."""
    if not asked.room_name:
        raise HTTPException(400, "name a room")
    if asked.room_name.startswith("board-"):
        raise HTTPException(403, "the board's rooms aren't open to you")
    return Access(room=asked.room_name, identity=f"user-{user}", name=asked.participant_name or user, role="guest")


client = AuthClient()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the connection to the service at shutdown."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)
app.include_router(token_router(client, authorize=authorize, older_path=None))
app.add_api_route("/sign-in", sign_in, methods=["POST"])
app.add_api_route("/sign-out", sign_out, methods=["POST"])


@app.get("/me")
def me(user: Annotated[str, Depends(signed_in)]) -> dict[str, str]:
    """Returns the signed-in user."""
    return {"user": user}


@app.middleware("http")
async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Restricts what the page may load, and forbids framing."""
    response = await call_next(request)
    response.headers["content-security-policy"] = CONTENT_SECURITY_POLICY
    response.headers["referrer-policy"] = "no-referrer"
    response.headers["x-content-type-options"] = "nosniff"
    return response


app.mount("/build", StaticFiles(directory=HERE / "build"))
app.mount("/", StaticFiles(directory=HERE / "page", html=True))
