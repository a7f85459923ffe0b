from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrackSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACK_SOURCE_UNSPECIFIED: _ClassVar[TrackSource]
    TRACK_SOURCE_CAMERA: _ClassVar[TrackSource]
    TRACK_SOURCE_MICROPHONE: _ClassVar[TrackSource]
    TRACK_SOURCE_SCREEN_SHARE: _ClassVar[TrackSource]
    TRACK_SOURCE_SCREEN_SHARE_AUDIO: _ClassVar[TrackSource]

class ParticipantKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARTICIPANT_KIND_UNSPECIFIED: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_STANDARD: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_EGRESS: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_INGRESS: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_SIP: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_AGENT: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_CONNECTOR: _ClassVar[ParticipantKind]
    PARTICIPANT_KIND_BRIDGE: _ClassVar[ParticipantKind]
TRACK_SOURCE_UNSPECIFIED: TrackSource
TRACK_SOURCE_CAMERA: TrackSource
TRACK_SOURCE_MICROPHONE: TrackSource
TRACK_SOURCE_SCREEN_SHARE: TrackSource
TRACK_SOURCE_SCREEN_SHARE_AUDIO: TrackSource
PARTICIPANT_KIND_UNSPECIFIED: ParticipantKind
PARTICIPANT_KIND_STANDARD: ParticipantKind
PARTICIPANT_KIND_EGRESS: ParticipantKind
PARTICIPANT_KIND_INGRESS: ParticipantKind
PARTICIPANT_KIND_SIP: ParticipantKind
PARTICIPANT_KIND_AGENT: ParticipantKind
PARTICIPANT_KIND_CONNECTOR: ParticipantKind
PARTICIPANT_KIND_BRIDGE: ParticipantKind

class Grants(_message.Message):
    __slots__ = ("video", "sip", "inference", "observability", "cloud_agent", "agent_endpoint", "agent_thread")
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    SIP_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    OBSERVABILITY_FIELD_NUMBER: _ClassVar[int]
    CLOUD_AGENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    AGENT_THREAD_FIELD_NUMBER: _ClassVar[int]
    video: VideoGrant
    sip: SipGrant
    inference: InferenceGrant
    observability: ObservabilityGrant
    cloud_agent: CloudAgentGrant
    agent_endpoint: AgentEndpointGrant
    agent_thread: AgentThreadGrant
    def __init__(self, video: _Optional[_Union[VideoGrant, _Mapping]] = ..., sip: _Optional[_Union[SipGrant, _Mapping]] = ..., inference: _Optional[_Union[InferenceGrant, _Mapping]] = ..., observability: _Optional[_Union[ObservabilityGrant, _Mapping]] = ..., cloud_agent: _Optional[_Union[CloudAgentGrant, _Mapping]] = ..., agent_endpoint: _Optional[_Union[AgentEndpointGrant, _Mapping]] = ..., agent_thread: _Optional[_Union[AgentThreadGrant, _Mapping]] = ...) -> None: ...

class VideoGrant(_message.Message):
    __slots__ = ("room_join", "can_publish", "can_subscribe", "can_publish_data", "can_publish_sources", "can_update_own_metadata", "agent", "room_admin", "room_create", "room_list", "room_record", "ingress_admin", "hidden", "recorder", "destination_room", "can_manage_agent_session", "can_subscribe_metrics")
    ROOM_JOIN_FIELD_NUMBER: _ClassVar[int]
    CAN_PUBLISH_FIELD_NUMBER: _ClassVar[int]
    CAN_SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    CAN_PUBLISH_DATA_FIELD_NUMBER: _ClassVar[int]
    CAN_PUBLISH_SOURCES_FIELD_NUMBER: _ClassVar[int]
    CAN_UPDATE_OWN_METADATA_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ROOM_ADMIN_FIELD_NUMBER: _ClassVar[int]
    ROOM_CREATE_FIELD_NUMBER: _ClassVar[int]
    ROOM_LIST_FIELD_NUMBER: _ClassVar[int]
    ROOM_RECORD_FIELD_NUMBER: _ClassVar[int]
    INGRESS_ADMIN_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    RECORDER_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ROOM_FIELD_NUMBER: _ClassVar[int]
    CAN_MANAGE_AGENT_SESSION_FIELD_NUMBER: _ClassVar[int]
    CAN_SUBSCRIBE_METRICS_FIELD_NUMBER: _ClassVar[int]
    room_join: bool
    can_publish: bool
    can_subscribe: bool
    can_publish_data: bool
    can_publish_sources: _containers.RepeatedScalarFieldContainer[TrackSource]
    can_update_own_metadata: bool
    agent: bool
    room_admin: bool
    room_create: bool
    room_list: bool
    room_record: bool
    ingress_admin: bool
    hidden: bool
    recorder: bool
    destination_room: str
    can_manage_agent_session: bool
    can_subscribe_metrics: bool
    def __init__(self, room_join: _Optional[bool] = ..., can_publish: _Optional[bool] = ..., can_subscribe: _Optional[bool] = ..., can_publish_data: _Optional[bool] = ..., can_publish_sources: _Optional[_Iterable[_Union[TrackSource, str]]] = ..., can_update_own_metadata: _Optional[bool] = ..., agent: _Optional[bool] = ..., room_admin: _Optional[bool] = ..., room_create: _Optional[bool] = ..., room_list: _Optional[bool] = ..., room_record: _Optional[bool] = ..., ingress_admin: _Optional[bool] = ..., hidden: _Optional[bool] = ..., recorder: _Optional[bool] = ..., destination_room: _Optional[str] = ..., can_manage_agent_session: _Optional[bool] = ..., can_subscribe_metrics: _Optional[bool] = ...) -> None: ...

class SipGrant(_message.Message):
    __slots__ = ("admin", "call")
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    admin: bool
    call: bool
    def __init__(self, admin: _Optional[bool] = ..., call: _Optional[bool] = ...) -> None: ...

class InferenceGrant(_message.Message):
    __slots__ = ("perform",)
    PERFORM_FIELD_NUMBER: _ClassVar[int]
    perform: bool
    def __init__(self, perform: _Optional[bool] = ...) -> None: ...

class ObservabilityGrant(_message.Message):
    __slots__ = ("write",)
    WRITE_FIELD_NUMBER: _ClassVar[int]
    write: bool
    def __init__(self, write: _Optional[bool] = ...) -> None: ...

class CloudAgentGrant(_message.Message):
    __slots__ = ("admin", "simulation_admin", "database_admin", "dispatch_admin")
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_ADMIN_FIELD_NUMBER: _ClassVar[int]
    DATABASE_ADMIN_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_ADMIN_FIELD_NUMBER: _ClassVar[int]
    admin: bool
    simulation_admin: bool
    database_admin: bool
    dispatch_admin: bool
    def __init__(self, admin: _Optional[bool] = ..., simulation_admin: _Optional[bool] = ..., database_admin: _Optional[bool] = ..., dispatch_admin: _Optional[bool] = ...) -> None: ...

class AgentEndpointGrant(_message.Message):
    __slots__ = ("call", "agent_name", "deployment")
    CALL_FIELD_NUMBER: _ClassVar[int]
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    call: bool
    agent_name: str
    deployment: str
    def __init__(self, call: _Optional[bool] = ..., agent_name: _Optional[str] = ..., deployment: _Optional[str] = ...) -> None: ...

class AgentThreadGrant(_message.Message):
    __slots__ = ("all", "scope", "thread_ids", "list", "create", "write", "read", "delete")
    ALL_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    all: bool
    scope: str
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    list: bool
    create: bool
    write: bool
    read: bool
    delete: bool
    def __init__(self, all: _Optional[bool] = ..., scope: _Optional[str] = ..., thread_ids: _Optional[_Iterable[str]] = ..., list: _Optional[bool] = ..., create: _Optional[bool] = ..., write: _Optional[bool] = ..., read: _Optional[bool] = ..., delete: _Optional[bool] = ...) -> None: ...
