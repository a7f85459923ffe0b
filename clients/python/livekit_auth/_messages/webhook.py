"""A verified webhook: the server's summary and the caller's own bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from livekit_auth._messages.results import to_datetime
from livekit_auth.extras import how_to_install
from livekit_auth.v1 import auth_service_pb2 as pb

if TYPE_CHECKING:
    from datetime import datetime

    from livekit.protocol.webhook import WebhookEvent

DuplicateStatus = Literal["new", "duplicate", "unknown"]
"""Whether a webhook was handled before. Unknown: the event has no id, or the server can't say now."""

_STATUSES: dict[int, DuplicateStatus] = {
    pb.DUPLICATE_STATUS_NEW: "new",
    pb.DUPLICATE_STATUS_DUPLICATE: "duplicate",
}
_NAMES = {"raw_type": "type", "id": "event_id"}  # the contract's names of a VerifiedWebhook's fields, where they differ


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
    duplicate_status: DuplicateStatus
    """Whether this caller has acknowledged an event with this id and these bytes; see `is_duplicate`."""
    truncated: tuple[str, ...]
    """The names of the fields above that are empty because the body's value is over 256 bytes: see `parse`."""
    body_sha256: bytes
    """The SHA-256 of the body, 32 bytes."""
    body: bytes = field(repr=False)
    """The body as passed to `verify_webhook`."""

    @property
    def is_duplicate(self) -> bool:
        """Whether the caller has certainly handled this event before. An event of unknown status must be handled."""
        return self.duplicate_status == "duplicate"

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


def verified_webhook(message: pb.VerifyWebhookResponse, body: bytes) -> VerifiedWebhook:
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
        duplicate_status=_STATUSES.get(message.duplicate_status, "unknown"),
        truncated=tuple(_NAMES.get(name, name) for name in event.truncated),
        body_sha256=hashlib.sha256(body).digest(),
        body=body,
    )
