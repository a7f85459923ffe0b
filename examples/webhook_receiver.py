"""Receives LiveKit's webhooks: `uvicorn webhook_receiver:app --app-dir examples`, with LIVEKIT_AUTH_* set."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from livekit_auth import AuthClient, VerifiedWebhook
from livekit_auth.fastapi import webhook_router

log = logging.getLogger("uvicorn.error")
client = AuthClient()
hooks = webhook_router(client)


@hooks.on("participant_joined", "participant_left")
async def came_or_went(event: VerifiedWebhook) -> None:
    """Runs after LiveKit's signature is verified, and runs again only if it failed."""
    log.info("%s: %s in %s", event.type, event.participant_identity, event.room)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the connection to the service at shutdown."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(hooks)
