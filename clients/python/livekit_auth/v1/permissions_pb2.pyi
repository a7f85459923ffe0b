import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from livekit_auth.v1 import grants_pb2 as _grants_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AllowEntry(_message.Message):
    __slots__ = ("name", "index", "projects", "roles", "grants", "powers", "rooms", "identities", "default_ttl", "max_ttl")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    POWERS_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_FIELD_NUMBER: _ClassVar[int]
    name: str
    index: int
    projects: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    grants: _containers.RepeatedScalarFieldContainer[str]
    powers: _containers.RepeatedScalarFieldContainer[str]
    rooms: _containers.RepeatedCompositeFieldContainer[Matcher]
    identities: _containers.RepeatedCompositeFieldContainer[Matcher]
    default_ttl: _duration_pb2.Duration
    max_ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ..., projects: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ..., grants: _Optional[_Iterable[str]] = ..., powers: _Optional[_Iterable[str]] = ..., rooms: _Optional[_Iterable[_Union[Matcher, _Mapping]]] = ..., identities: _Optional[_Iterable[_Union[Matcher, _Mapping]]] = ..., default_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Role(_message.Message):
    __slots__ = ("name", "grants")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    grants: _grants_pb2.Grants
    def __init__(self, name: _Optional[str] = ..., grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ...) -> None: ...

class Matcher(_message.Message):
    __slots__ = ("exact", "prefix", "any")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    exact: str
    prefix: str
    any: bool
    def __init__(self, exact: _Optional[str] = ..., prefix: _Optional[str] = ..., any: _Optional[bool] = ...) -> None: ...

class Project(_message.Message):
    __slots__ = ("name", "url", "is_default", "issue_tokens", "verify_webhooks", "verify_tokens", "read_decisions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    ISSUE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_WEBHOOKS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    READ_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    is_default: bool
    issue_tokens: bool
    verify_webhooks: bool
    verify_tokens: bool
    read_decisions: bool
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., is_default: _Optional[bool] = ..., issue_tokens: _Optional[bool] = ..., verify_webhooks: _Optional[bool] = ..., verify_tokens: _Optional[bool] = ..., read_decisions: _Optional[bool] = ...) -> None: ...
