"""Receives LiveKit's webhooks: `uvicorn webhook_receiver:app --app-dir examples`, with LIVEKIT_AUTH_* set."""

import logging

from fastapi import FastAPI

from livekit_auth import AuthClient, VerifiedWebhook
from livekit_auth.fastapi import webhook_router

log = logging.getLogger("uvicorn.error")
app = FastAPI()
hooks = webhook_router(AuthClient())


@hooks.on("participant_joined", "participant_left")
async def came_or_went(event: VerifiedWebhook) -> None:
    """Runs once LiveKit's signature holds, and again only if it failed."""
    log.info("%s: %s in %s", event.type, event.participant_identity, event.room)


app.include_router(hooks)
