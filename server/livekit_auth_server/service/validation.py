"""The field rules of the contract, as the protovalidate annotations in protos/livekit_auth/v1 state them.

Guarantees: a `Valid` holds a message that keeps them all. One walk over the fields that are set, one rule a field. A
test compares it with protovalidate over generated requests, and another sees that no string, bytes, map or enum field
is without a rule.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from livekit_auth_server.core.keys import PROJECT_NAME
from livekit_auth_server.core.policy import ROLE_NAME
from livekit_auth_server.core.refusal import Violation, invalid
from livekit_auth_server.core.webhook import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

M = TypeVar("M", bound=Message)
Field = Any  # a FieldDescriptor: its type differs between protobuf's implementations

KIB = 1024
MAX_TTL = 365 * 24 * 3600
MAX_BATCH = 500
_TOLD = 16  # broken rules in one answer, which trailers bound

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_NOT_IN_NAMES = re.compile(f"[{CONTROLS}]")
_NOT_IN_IDENTIFIERS = re.compile(f"[{CONTROLS}{_BIDI}{_NONCHARACTERS}]")
_PROJECT = re.compile(rf"{PROJECT_NAME}\Z")
_ROLE = re.compile(rf"{ROLE_NAME}\Z")
_DECISION_ID = re.compile(r"[a-z0-9-]{1,64}\Z")


def _too_long(value: str | bytes, limit: int) -> str | None:
    size = len(value) if isinstance(value, bytes) else len(value.encode())
    return f"{size} bytes are over the limit of {limit}" if size > limit else None


def _text(limit: int) -> Callable[[str], str | None]:
    return lambda value: _too_long(value, limit)


def _name(limit: int) -> Callable[[str], str | None]:
    def rule(value: str) -> str | None:
        return _too_long(value, limit) or ("holds a control character" if _NOT_IN_NAMES.search(value) else None)

    return rule


def _identifier(value: str) -> str | None:
    if _NOT_IN_IDENTIFIERS.search(value):
        return "holds a control character, a bidirectional control or a noncharacter"
    return _too_long(value, 256)


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str | None]:
    return lambda value: None if pattern.match(value) else f"isn't {what}"


def _attributes(value: dict[str, str]) -> str | None:
    size = sum(len(key.encode()) + len(text.encode()) for key, text in value.items())
    return f"{size} bytes of keys and values are over the limit of {64 * KIB}" if size > 64 * KIB else None


def _at_most(count: int) -> Callable[[Any], str | None]:
    return lambda value: f"{len(value)} entries are over the limit of {count}" if len(value) > count else None


def _within(low: float, high: float) -> Callable[[float], str | None]:
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}"


def _ttl(value: Any) -> str | None:  # noqa: ANN401 - a Duration
    if value.nanos or not 1 <= value.seconds <= MAX_TTL:
        return f"must be whole seconds from 1 to {MAX_TTL}"
    return None


def _page_size(value: int) -> str | None:
    return "must not be negative" if value < 0 else None


def _sources(value: list[int]) -> str | None:
    if 0 in value:
        return "a source can't be unspecified"
    return "names a source twice" if len(set(value)) != len(value) else None


def _thread_ids(value: list[str]) -> str | None:
    if len(value) > 100:  # noqa: PLR2004 - the contract's number
        return f"{len(value)} entries are over the limit of 100"
    return next((wrong for item in value if (wrong := _name(256)(item) or (None if item else "an id is empty"))), None)


_name_256, _name_1024, _pixels = _name(256), _name(1024), _within(0, 8192)
_project = _matching(_PROJECT, "a project's name: a-z, 0-9 and '-', at most 63 characters")

RULES: dict[str, Any] = {
    "IssueTokenRequest.project": _project,
    "IssueTokenRequest.identity": _identifier,
    "IssueTokenRequest.name": _name_256,
    "IssueTokenRequest.metadata": _text(512 * KIB),
    "IssueTokenRequest.attributes": _attributes,
    "IssueTokenRequest.role": _matching(_ROLE, "a role's name: a-z, 0-9, '-' and '_', at most 63 characters"),
    "IssueTokenRequest.room": _identifier,
    "IssueTokenRequest.ttl": _ttl,
    "IssueTokenRequest.room_preset": _name_256,
    "IssueTokenRequest.request_reason": _name_256,
    "VerifyWebhookRequest.body": lambda _: None,  # the limit is a setting, with a reason of its own
    "VerifyWebhookRequest.authorization": _text(8 * KIB),
    "VerifyWebhookRequest.project": _project,
    "AckWebhookRequest.project": _project,
    "AckWebhookRequest.event_id": _name_256,
    "AckWebhookRequest.body_sha256": lambda value: None if len(value) == 32 else "isn't 32 bytes",  # noqa: PLR2004
    "VerifyTokenRequest.token": _text(3 * KIB * KIB),
    "ListPermissionsRequest.page_size": _page_size,
    "ListPermissionsRequest.page_token": _text(256),
    "ListProjectsRequest.page_size": _page_size,
    "ListProjectsRequest.page_token": _text(256),
    "GetDecisionRequest.decision_id": _matching(
        _DECISION_ID, "a decision's ID: a-z, 0-9 and '-', at most 64 characters"
    ),
    "VideoGrant.can_publish_sources": _sources,
    "VideoGrant.destination_room": _identifier,
    "AgentEndpointGrant.agent_name": _name_256,
    "AgentEndpointGrant.deployment": _name_256,
    "AgentThreadGrant.scope": _name_256,
    "AgentThreadGrant.thread_ids": _thread_ids,
    "RoomConfig.name": _name_256,
    "RoomConfig.metadata": _text(64 * KIB),
    "RoomConfig.agents": _at_most(16),
    "RoomConfig.tags": _at_most(64),
    "RoomAgentDispatch.agent_name": _name_256,
    "RoomAgentDispatch.metadata": _text(64 * KIB),
    "RoomAgentDispatch.deployment": _name_256,
    "RoomAgentDispatch.attributes": _at_most(64),
    "RoomCompositeEgress.layout": _name_256,
    "RoomCompositeEgress.file_outputs": _at_most(8),
    "RoomCompositeEgress.segment_outputs": _at_most(8),
    "RoomCompositeEgress.image_outputs": _at_most(8),
    "ParticipantEgress.file_outputs": _at_most(8),
    "ParticipantEgress.segment_outputs": _at_most(8),
    "TrackEgress.filepath": _name_1024,
    "FileOutput.filepath": _name_1024,
    "SegmentOutput.filename_prefix": _name_1024,
    "SegmentOutput.playlist_name": _name_1024,
    "SegmentOutput.live_playlist_name": _name_1024,
    "ImageOutput.filename_prefix": _name_1024,
    "ImageOutput.width": _pixels,
    "ImageOutput.height": _pixels,
    "EncodingOptions.width": _pixels,
    "EncodingOptions.height": _pixels,
    "EncodingOptions.depth": _within(0, 48),
    "EncodingOptions.framerate": _within(0, 240),
    "EncodingOptions.audio_bitrate": _within(0, 100_000),
    "EncodingOptions.audio_frequency": _within(0, 384_000),
    "EncodingOptions.video_bitrate": _within(0, 1_000_000),
    "EncodingOptions.key_frame_interval": _within(0, 600),
    "EncodingOptions.audio_quality": _within(0, 100),
    "EncodingOptions.video_quality": _within(0, 100),
}

# Fields that a message can't do without. `access` is a oneof: one of its fields.
REQUIRED: dict[str, tuple[str, ...]] = {
    "VerifyWebhookRequest": ("body", "authorization"),
    "AckWebhookRequest": ("project", "event_id", "body_sha256"),
    "VerifyTokenRequest": ("token",),
    "GetDecisionRequest": ("decision_id",),
}

_KEYS: dict[Field, str] = {}


class Valid(Generic[M]):
    """A message that keeps every rule: making one checks them. Raises REQUEST_INVALID with the first few broken."""

    __slots__ = ("message",)

    def __init__(self, message: M) -> None:
        if found := violations(message, _TOLD):
            raise invalid(*found)
        self.message = message


def violations(message: Message, limit: int | None = None) -> tuple[Violation, ...]:
    """Every rule that the message breaks, or the first `limit`; empty when it keeps them all.

    Entries of a batch are judged one by one.
    """
    return tuple(islice(_walk(message, ""), limit))


def _walk(message: Message, path: str) -> Iterator[Violation]:
    name = message.DESCRIPTOR.name
    for required in REQUIRED.get(name, ()):
        if not getattr(message, required):
            yield Violation(f"{path}{required}", "is required")
    if name == "IssueTokenRequest" and message.WhichOneof("access") is None:
        yield Violation(f"{path}access", "needs exactly one of role and grants")
    for field, value in message.ListFields():
        key = _KEYS.get(field) or _KEYS.setdefault(field, f"{name}.{field.name}")
        rule = RULES.get(key)
        wrong = rule(value) if rule else None
        if wrong:
            yield Violation(f"{path}{field.name}", wrong)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            yield from _undefined(field, value, f"{path}{field.name}")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _nested(field, value, f"{path}{field.name}")


def _undefined(field: Field, value: Any, path: str) -> Iterator[Violation]:  # noqa: ANN401 - an int or several
    known = field.enum_type.values_by_number
    for number in value if field.is_repeated else (value,):
        if number not in known:
            yield Violation(path, f"{number} isn't a value of {field.enum_type.name}")


def _nested(field: Field, value: Any, path: str) -> Iterator[Violation]:  # noqa: ANN401 - one or several
    if field.message_type.GetOptions().map_entry or field.message_type.file.package.startswith("google."):
        return  # a rule of its own above
    if not field.is_repeated:
        yield from _walk(value, f"{path}.")
        return
    for index, item in enumerate(value):
        yield from _walk(item, f"{path}[{index}].")
