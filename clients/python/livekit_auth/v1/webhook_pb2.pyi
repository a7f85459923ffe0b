import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WebhookEventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEBHOOK_EVENT_TYPE_UNSPECIFIED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_ROOM_STARTED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_ROOM_FINISHED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_PARTICIPANT_JOINED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_PARTICIPANT_LEFT: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_PARTICIPANT_CONNECTION_ABORTED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_TRACK_PUBLISHED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_TRACK_UNPUBLISHED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_EGRESS_STARTED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_EGRESS_UPDATED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_EGRESS_ENDED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_INGRESS_STARTED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_INGRESS_ENDED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_AGENT_JOB_STARTED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_AGENT_JOB_ENDED: _ClassVar[WebhookEventType]
    WEBHOOK_EVENT_TYPE_AGENT_JOB_PENDING: _ClassVar[WebhookEventType]
WEBHOOK_EVENT_TYPE_UNSPECIFIED: WebhookEventType
WEBHOOK_EVENT_TYPE_ROOM_STARTED: WebhookEventType
WEBHOOK_EVENT_TYPE_ROOM_FINISHED: WebhookEventType
WEBHOOK_EVENT_TYPE_PARTICIPANT_JOINED: WebhookEventType
WEBHOOK_EVENT_TYPE_PARTICIPANT_LEFT: WebhookEventType
WEBHOOK_EVENT_TYPE_PARTICIPANT_CONNECTION_ABORTED: WebhookEventType
WEBHOOK_EVENT_TYPE_TRACK_PUBLISHED: WebhookEventType
WEBHOOK_EVENT_TYPE_TRACK_UNPUBLISHED: WebhookEventType
WEBHOOK_EVENT_TYPE_EGRESS_STARTED: WebhookEventType
WEBHOOK_EVENT_TYPE_EGRESS_UPDATED: WebhookEventType
WEBHOOK_EVENT_TYPE_EGRESS_ENDED: WebhookEventType
WEBHOOK_EVENT_TYPE_INGRESS_STARTED: WebhookEventType
WEBHOOK_EVENT_TYPE_INGRESS_ENDED: WebhookEventType
WEBHOOK_EVENT_TYPE_AGENT_JOB_STARTED: WebhookEventType
WEBHOOK_EVENT_TYPE_AGENT_JOB_ENDED: WebhookEventType
WEBHOOK_EVENT_TYPE_AGENT_JOB_PENDING: WebhookEventType

class WebhookEvent(_message.Message):
    __slots__ = ("type", "raw_type", "id", "room", "participant_identity", "create_time", "truncated")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RAW_TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    type: WebhookEventType
    raw_type: str
    id: str
    room: str
    participant_identity: str
    create_time: _timestamp_pb2.Timestamp
    truncated: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, type: _Optional[_Union[WebhookEventType, str]] = ..., raw_type: _Optional[str] = ..., id: _Optional[str] = ..., room: _Optional[str] = ..., participant_identity: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., truncated: _Optional[_Iterable[str]] = ...) -> None: ...
