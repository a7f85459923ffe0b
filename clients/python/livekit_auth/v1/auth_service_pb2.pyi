import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from livekit_auth.v1 import grants_pb2 as _grants_pb2
from livekit_auth.v1 import room_config_pb2 as _room_config_pb2
from livekit_auth.v1 import webhook_pb2 as _webhook_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IssueTokenRequest(_message.Message):
    __slots__ = ("project", "identity", "name", "metadata", "attributes", "role", "grants", "room", "ttl", "kind", "room_config", "room_preset", "validate_only")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROOM_CONFIG_FIELD_NUMBER: _ClassVar[int]
    ROOM_PRESET_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    project: str
    identity: str
    name: str
    metadata: str
    attributes: _containers.ScalarMap[str, str]
    role: str
    grants: _grants_pb2.Grants
    room: str
    ttl: _duration_pb2.Duration
    kind: _grants_pb2.ParticipantKind
    room_config: _room_config_pb2.RoomConfig
    room_preset: str
    validate_only: bool
    def __init__(self, project: _Optional[str] = ..., identity: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., role: _Optional[str] = ..., grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ..., room: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kind: _Optional[_Union[_grants_pb2.ParticipantKind, str]] = ..., room_config: _Optional[_Union[_room_config_pb2.RoomConfig, _Mapping]] = ..., room_preset: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class IssueTokenResponse(_message.Message):
    __slots__ = ("token", "url", "expire_time", "issue_time", "grants", "key_id", "policy_revision", "decision_id", "project")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ISSUE_TIME_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    token: str
    url: str
    expire_time: _timestamp_pb2.Timestamp
    issue_time: _timestamp_pb2.Timestamp
    grants: _grants_pb2.Grants
    key_id: str
    policy_revision: str
    decision_id: str
    project: str
    def __init__(self, token: _Optional[str] = ..., url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., issue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ..., key_id: _Optional[str] = ..., policy_revision: _Optional[str] = ..., decision_id: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class BatchIssueTokensRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[IssueTokenRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[IssueTokenRequest, _Mapping]]] = ...) -> None: ...

class BatchIssueTokensResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[IssueTokenResult]
    def __init__(self, results: _Optional[_Iterable[_Union[IssueTokenResult, _Mapping]]] = ...) -> None: ...

class IssueTokenResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: IssueTokenResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[IssueTokenResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class VerifyWebhookRequest(_message.Message):
    __slots__ = ("body", "authorization", "project")
    BODY_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    authorization: str
    project: str
    def __init__(self, body: _Optional[bytes] = ..., authorization: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class VerifyWebhookResponse(_message.Message):
    __slots__ = ("event", "key_id", "project", "duplicate", "duplicate_checked")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_CHECKED_FIELD_NUMBER: _ClassVar[int]
    event: _webhook_pb2.WebhookEvent
    key_id: str
    project: str
    duplicate: bool
    duplicate_checked: bool
    def __init__(self, event: _Optional[_Union[_webhook_pb2.WebhookEvent, _Mapping]] = ..., key_id: _Optional[str] = ..., project: _Optional[str] = ..., duplicate: _Optional[bool] = ..., duplicate_checked: _Optional[bool] = ...) -> None: ...

class AckWebhookRequest(_message.Message):
    __slots__ = ("project", "event_id", "body_sha256")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_SHA256_FIELD_NUMBER: _ClassVar[int]
    project: str
    event_id: str
    body_sha256: bytes
    def __init__(self, project: _Optional[str] = ..., event_id: _Optional[str] = ..., body_sha256: _Optional[bytes] = ...) -> None: ...

class AckWebhookResponse(_message.Message):
    __slots__ = ("expire_time",)
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class VerifyTokenRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class VerifyTokenResponse(_message.Message):
    __slots__ = ("grants", "room", "identity", "name", "metadata", "attributes", "kind", "room_preset", "room_config", "issue_time", "expire_time", "key_id", "project", "other_claims")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROOM_PRESET_FIELD_NUMBER: _ClassVar[int]
    ROOM_CONFIG_FIELD_NUMBER: _ClassVar[int]
    ISSUE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    OTHER_CLAIMS_FIELD_NUMBER: _ClassVar[int]
    grants: _grants_pb2.Grants
    room: str
    identity: str
    name: str
    metadata: str
    attributes: _containers.ScalarMap[str, str]
    kind: _grants_pb2.ParticipantKind
    room_preset: str
    room_config: _room_config_pb2.RoomConfig
    issue_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    key_id: str
    project: str
    other_claims: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ..., room: _Optional[str] = ..., identity: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., kind: _Optional[_Union[_grants_pb2.ParticipantKind, str]] = ..., room_preset: _Optional[str] = ..., room_config: _Optional[_Union[_room_config_pb2.RoomConfig, _Mapping]] = ..., issue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ..., project: _Optional[str] = ..., other_claims: _Optional[_Iterable[str]] = ...) -> None: ...

class GetCallerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCallerResponse(_message.Message):
    __slots__ = ("workload_id", "known", "policy_revision", "certificate_serial", "certificate_expire_time", "allow", "verify_webhooks", "verify_tokens")
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    VERIFY_WEBHOOKS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    known: bool
    policy_revision: str
    certificate_serial: str
    certificate_expire_time: _timestamp_pb2.Timestamp
    allow: _containers.RepeatedCompositeFieldContainer[AllowEntry]
    verify_webhooks: _containers.RepeatedScalarFieldContainer[str]
    verify_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, workload_id: _Optional[str] = ..., known: _Optional[bool] = ..., policy_revision: _Optional[str] = ..., certificate_serial: _Optional[str] = ..., certificate_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., allow: _Optional[_Iterable[_Union[AllowEntry, _Mapping]]] = ..., verify_webhooks: _Optional[_Iterable[str]] = ..., verify_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class AllowEntry(_message.Message):
    __slots__ = ("name", "projects", "roles", "grants", "powers", "rooms", "identities", "default_ttl", "max_ttl")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    POWERS_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_FIELD_NUMBER: _ClassVar[int]
    name: str
    projects: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    grants: _containers.RepeatedScalarFieldContainer[str]
    powers: _containers.RepeatedScalarFieldContainer[str]
    rooms: _containers.RepeatedCompositeFieldContainer[Matcher]
    identities: _containers.RepeatedCompositeFieldContainer[Matcher]
    default_ttl: _duration_pb2.Duration
    max_ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., projects: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[str]] = ..., grants: _Optional[_Iterable[str]] = ..., powers: _Optional[_Iterable[str]] = ..., rooms: _Optional[_Iterable[_Union[Matcher, _Mapping]]] = ..., identities: _Optional[_Iterable[_Union[Matcher, _Mapping]]] = ..., default_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Matcher(_message.Message):
    __slots__ = ("exact", "prefix", "any")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    exact: str
    prefix: str
    any: bool
    def __init__(self, exact: _Optional[str] = ..., prefix: _Optional[str] = ..., any: _Optional[bool] = ...) -> None: ...
