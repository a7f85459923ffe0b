"""A verified webhook: the server's summary and the caller's own bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth._messages.results import to_datetime
from livekit_auth.extras import how_to_install

if TYPE_CHECKING:
    from datetime import datetime

    from livekit.protocol.webhook import WebhookEvent

    from livekit_auth.v1.auth_service_pb2 import VerifyWebhookResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedWebhook:
    """A webhook signed by LiveKit. The fields are a summary; `parse` returns the whole event."""

    type: str
    """The event name as LiveKit sent it, such as "participant_joined"; empty if the body has none."""
    event_id: str
    """The event id ("EV_…"); empty if the body has none."""
    room: str
    """The room's name; empty if the event has no room."""
    participant_identity: str
    """The participant's identity; empty if the event has no participant."""
    create_time: datetime | None
    """When LiveKit created the event, in UTC, in whole seconds; None if the body doesn't say."""
    key_id: str
    """The id of the API key that signed it."""
    project: str
    """The LiveKit project that the key belongs to."""
    duplicate: bool
    """Whether this caller has acknowledged an event with this id and these bytes."""
    duplicate_checked: bool
    """False if the server couldn't check or the event has no id; `duplicate` is then False and meaningless."""
    body_sha256: bytes
    """The SHA-256 of the body, 32 bytes."""
    body: bytes = field(repr=False)
    """The body as passed to `verify_webhook`."""

    def parse(self) -> WebhookEvent:
        """Parses the whole event from the verified bytes.

        Fields unknown to the installed livekit-protocol are ignored. Parsing 1 MiB takes tens of milliseconds. Raises
        ImportError without the extra `livekit`, and google.protobuf.json_format.ParseError if the JSON isn't an event.
        """
        from google.protobuf import json_format  # noqa: PLC0415 - used only here

        try:
            from livekit.protocol.webhook import WebhookEvent  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImportError(f"VerifiedWebhook.parse needs livekit-protocol: {how_to_install('livekit')}") from error
        return json_format.Parse(self.body, WebhookEvent(), ignore_unknown_fields=True)


def verified_webhook(message: VerifyWebhookResponse, body: bytes) -> VerifiedWebhook:
    """Reads VerifyWebhookResponse, the response for this body."""
    event = message.event
    return VerifiedWebhook(
        type=event.raw_type,
        event_id=event.id,
        room=event.room,
        participant_identity=event.participant_identity,
        create_time=to_datetime(event.create_time) if event.HasField("create_time") else None,
        key_id=message.key_id,
        project=message.project,
        duplicate=message.duplicate,
        duplicate_checked=message.duplicate_checked,
        body_sha256=hashlib.sha256(body).digest(),
        body=body,
    )
