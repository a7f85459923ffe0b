import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from livekit_auth.v1 import decision_pb2 as _decision_pb2
from livekit_auth.v1 import grants_pb2 as _grants_pb2
from livekit_auth.v1 import permissions_pb2 as _permissions_pb2
from livekit_auth.v1 import room_config_pb2 as _room_config_pb2
from livekit_auth.v1 import webhook_pb2 as _webhook_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DuplicateStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DUPLICATE_STATUS_UNSPECIFIED: _ClassVar[DuplicateStatus]
    DUPLICATE_STATUS_NEW: _ClassVar[DuplicateStatus]
    DUPLICATE_STATUS_DUPLICATE: _ClassVar[DuplicateStatus]
    DUPLICATE_STATUS_UNKNOWN: _ClassVar[DuplicateStatus]

class ContractRevision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTRACT_REVISION_UNSPECIFIED: _ClassVar[ContractRevision]
    CONTRACT_REVISION_0_2_0: _ClassVar[ContractRevision]
DUPLICATE_STATUS_UNSPECIFIED: DuplicateStatus
DUPLICATE_STATUS_NEW: DuplicateStatus
DUPLICATE_STATUS_DUPLICATE: DuplicateStatus
DUPLICATE_STATUS_UNKNOWN: DuplicateStatus
CONTRACT_REVISION_UNSPECIFIED: ContractRevision
CONTRACT_REVISION_0_2_0: ContractRevision

class IssueTokenRequest(_message.Message):
    __slots__ = ("project", "identity", "name", "metadata", "attributes", "role", "grants", "room", "ttl", "kind", "room_config", "room_preset", "validate_only", "request_reason")
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
    REQUEST_REASON_FIELD_NUMBER: _ClassVar[int]
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
    request_reason: str
    def __init__(self, project: _Optional[str] = ..., identity: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., role: _Optional[str] = ..., grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ..., room: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kind: _Optional[_Union[_grants_pb2.ParticipantKind, str]] = ..., room_config: _Optional[_Union[_room_config_pb2.RoomConfig, _Mapping]] = ..., room_preset: _Optional[str] = ..., validate_only: _Optional[bool] = ..., request_reason: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("event", "key_id", "project", "duplicate_status")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    event: _webhook_pb2.WebhookEvent
    key_id: str
    project: str
    duplicate_status: DuplicateStatus
    def __init__(self, event: _Optional[_Union[_webhook_pb2.WebhookEvent, _Mapping]] = ..., key_id: _Optional[str] = ..., project: _Optional[str] = ..., duplicate_status: _Optional[_Union[DuplicateStatus, str]] = ...) -> None: ...

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
    __slots__ = ("grants", "room", "identity", "name", "metadata", "attributes", "kind", "raw_kind", "room_preset", "room_config", "issue_time", "expire_time", "key_id", "project", "other_claims")
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
    RAW_KIND_FIELD_NUMBER: _ClassVar[int]
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
    raw_kind: str
    room_preset: str
    room_config: _room_config_pb2.RoomConfig
    issue_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    key_id: str
    project: str
    other_claims: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grants: _Optional[_Union[_grants_pb2.Grants, _Mapping]] = ..., room: _Optional[str] = ..., identity: _Optional[str] = ..., name: _Optional[str] = ..., metadata: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., kind: _Optional[_Union[_grants_pb2.ParticipantKind, str]] = ..., raw_kind: _Optional[str] = ..., room_preset: _Optional[str] = ..., room_config: _Optional[_Union[_room_config_pb2.RoomConfig, _Mapping]] = ..., issue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ..., project: _Optional[str] = ..., other_claims: _Optional[_Iterable[str]] = ...) -> None: ...

class GetCallerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCallerResponse(_message.Message):
    __slots__ = ("workload_id", "listed", "policy_revision", "certificate_serial", "certificate_expire_time")
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    listed: bool
    policy_revision: str
    certificate_serial: str
    certificate_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, workload_id: _Optional[str] = ..., listed: _Optional[bool] = ..., policy_revision: _Optional[str] = ..., certificate_serial: _Optional[str] = ..., certificate_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListPermissionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPermissionsResponse(_message.Message):
    __slots__ = ("entries", "next_page_token", "policy_revision")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_permissions_pb2.AllowEntry]
    next_page_token: str
    policy_revision: str
    def __init__(self, entries: _Optional[_Iterable[_Union[_permissions_pb2.AllowEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., policy_revision: _Optional[str] = ...) -> None: ...

class ListProjectsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListProjectsResponse(_message.Message):
    __slots__ = ("projects", "next_page_token", "policy_revision")
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    projects: _containers.RepeatedCompositeFieldContainer[_permissions_pb2.Project]
    next_page_token: str
    policy_revision: str
    def __init__(self, projects: _Optional[_Iterable[_Union[_permissions_pb2.Project, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., policy_revision: _Optional[str] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("decision_id",)
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    def __init__(self, decision_id: _Optional[str] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "contract_revision", "methods", "max_batch_entries", "max_webhook_body_bytes", "max_response_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_REVISION_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MAX_WEBHOOK_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    contract_revision: ContractRevision
    methods: _containers.RepeatedCompositeFieldContainer[MethodInfo]
    max_batch_entries: int
    max_webhook_body_bytes: int
    max_response_bytes: int
    def __init__(self, version: _Optional[str] = ..., contract_revision: _Optional[_Union[ContractRevision, str]] = ..., methods: _Optional[_Iterable[_Union[MethodInfo, _Mapping]]] = ..., max_batch_entries: _Optional[int] = ..., max_webhook_body_bytes: _Optional[int] = ..., max_response_bytes: _Optional[int] = ...) -> None: ...

class MethodInfo(_message.Message):
    __slots__ = ("name", "max_request_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_request_bytes: int
    def __init__(self, name: _Optional[str] = ..., max_request_bytes: _Optional[int] = ...) -> None: ...
