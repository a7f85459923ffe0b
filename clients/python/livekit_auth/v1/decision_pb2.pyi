import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(_message.Message):
    __slots__ = ("decision_id", "decide_time", "workload_id", "method", "reason", "message", "policy_revision", "project", "role", "room", "identity", "ttl", "request_reason", "shortfalls", "shortfall_count")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_REASON_FIELD_NUMBER: _ClassVar[int]
    SHORTFALLS_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    decide_time: _timestamp_pb2.Timestamp
    workload_id: str
    method: str
    reason: str
    message: str
    policy_revision: str
    project: str
    role: str
    room: str
    identity: str
    ttl: _duration_pb2.Duration
    request_reason: str
    shortfalls: _containers.RepeatedCompositeFieldContainer[EntryShortfall]
    shortfall_count: int
    def __init__(self, decision_id: _Optional[str] = ..., decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., workload_id: _Optional[str] = ..., method: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., policy_revision: _Optional[str] = ..., project: _Optional[str] = ..., role: _Optional[str] = ..., room: _Optional[str] = ..., identity: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_reason: _Optional[str] = ..., shortfalls: _Optional[_Iterable[_Union[EntryShortfall, _Mapping]]] = ..., shortfall_count: _Optional[int] = ...) -> None: ...

class EntryShortfall(_message.Message):
    __slots__ = ("entry", "lacks")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    LACKS_FIELD_NUMBER: _ClassVar[int]
    entry: str
    lacks: _containers.RepeatedCompositeFieldContainer[Lack]
    def __init__(self, entry: _Optional[str] = ..., lacks: _Optional[_Iterable[_Union[Lack, _Mapping]]] = ...) -> None: ...

class Lack(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
