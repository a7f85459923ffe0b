from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobRestartPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_RESTART_POLICY_UNSPECIFIED: _ClassVar[JobRestartPolicy]
    JOB_RESTART_POLICY_JRP_ON_FAILURE: _ClassVar[JobRestartPolicy]
    JOB_RESTART_POLICY_JRP_NEVER: _ClassVar[JobRestartPolicy]

class AudioMixing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_MIXING_UNSPECIFIED: _ClassVar[AudioMixing]
    AUDIO_MIXING_DEFAULT_MIXING: _ClassVar[AudioMixing]
    AUDIO_MIXING_DUAL_CHANNEL_AGENT: _ClassVar[AudioMixing]
    AUDIO_MIXING_DUAL_CHANNEL_ALTERNATE: _ClassVar[AudioMixing]

class EncodingPreset(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_PRESET_UNSPECIFIED: _ClassVar[EncodingPreset]
    ENCODING_PRESET_H264_720P_30: _ClassVar[EncodingPreset]
    ENCODING_PRESET_H264_720P_60: _ClassVar[EncodingPreset]
    ENCODING_PRESET_H264_1080P_30: _ClassVar[EncodingPreset]
    ENCODING_PRESET_H264_1080P_60: _ClassVar[EncodingPreset]
    ENCODING_PRESET_PORTRAIT_H264_720P_30: _ClassVar[EncodingPreset]
    ENCODING_PRESET_PORTRAIT_H264_720P_60: _ClassVar[EncodingPreset]
    ENCODING_PRESET_PORTRAIT_H264_1080P_30: _ClassVar[EncodingPreset]
    ENCODING_PRESET_PORTRAIT_H264_1080P_60: _ClassVar[EncodingPreset]
    ENCODING_PRESET_PASSTHROUGH: _ClassVar[EncodingPreset]

class EncodedFileType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODED_FILE_TYPE_UNSPECIFIED: _ClassVar[EncodedFileType]
    ENCODED_FILE_TYPE_DEFAULT_FILETYPE: _ClassVar[EncodedFileType]
    ENCODED_FILE_TYPE_MP4: _ClassVar[EncodedFileType]
    ENCODED_FILE_TYPE_OGG: _ClassVar[EncodedFileType]
    ENCODED_FILE_TYPE_MP3: _ClassVar[EncodedFileType]

class SegmentedFileProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENTED_FILE_PROTOCOL_UNSPECIFIED: _ClassVar[SegmentedFileProtocol]
    SEGMENTED_FILE_PROTOCOL_DEFAULT_SEGMENTED_FILE_PROTOCOL: _ClassVar[SegmentedFileProtocol]
    SEGMENTED_FILE_PROTOCOL_HLS_PROTOCOL: _ClassVar[SegmentedFileProtocol]
    SEGMENTED_FILE_PROTOCOL_HLS_FMP4_PROTOCOL: _ClassVar[SegmentedFileProtocol]

class SegmentedFileSuffix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENTED_FILE_SUFFIX_UNSPECIFIED: _ClassVar[SegmentedFileSuffix]
    SEGMENTED_FILE_SUFFIX_INDEX: _ClassVar[SegmentedFileSuffix]
    SEGMENTED_FILE_SUFFIX_TIMESTAMP: _ClassVar[SegmentedFileSuffix]

class ImageFileSuffix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FILE_SUFFIX_UNSPECIFIED: _ClassVar[ImageFileSuffix]
    IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_INDEX: _ClassVar[ImageFileSuffix]
    IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_TIMESTAMP: _ClassVar[ImageFileSuffix]
    IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_NONE_OVERWRITE: _ClassVar[ImageFileSuffix]

class ImageCodec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_CODEC_UNSPECIFIED: _ClassVar[ImageCodec]
    IMAGE_CODEC_IC_DEFAULT: _ClassVar[ImageCodec]
    IMAGE_CODEC_IC_JPEG: _ClassVar[ImageCodec]

class AudioCodec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_CODEC_UNSPECIFIED: _ClassVar[AudioCodec]
    AUDIO_CODEC_DEFAULT_AC: _ClassVar[AudioCodec]
    AUDIO_CODEC_OPUS: _ClassVar[AudioCodec]
    AUDIO_CODEC_AAC: _ClassVar[AudioCodec]
    AUDIO_CODEC_AC_MP3: _ClassVar[AudioCodec]

class VideoCodec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIDEO_CODEC_UNSPECIFIED: _ClassVar[VideoCodec]
    VIDEO_CODEC_DEFAULT_VC: _ClassVar[VideoCodec]
    VIDEO_CODEC_H264_BASELINE: _ClassVar[VideoCodec]
    VIDEO_CODEC_H264_MAIN: _ClassVar[VideoCodec]
    VIDEO_CODEC_H264_HIGH: _ClassVar[VideoCodec]
    VIDEO_CODEC_VP8: _ClassVar[VideoCodec]
JOB_RESTART_POLICY_UNSPECIFIED: JobRestartPolicy
JOB_RESTART_POLICY_JRP_ON_FAILURE: JobRestartPolicy
JOB_RESTART_POLICY_JRP_NEVER: JobRestartPolicy
AUDIO_MIXING_UNSPECIFIED: AudioMixing
AUDIO_MIXING_DEFAULT_MIXING: AudioMixing
AUDIO_MIXING_DUAL_CHANNEL_AGENT: AudioMixing
AUDIO_MIXING_DUAL_CHANNEL_ALTERNATE: AudioMixing
ENCODING_PRESET_UNSPECIFIED: EncodingPreset
ENCODING_PRESET_H264_720P_30: EncodingPreset
ENCODING_PRESET_H264_720P_60: EncodingPreset
ENCODING_PRESET_H264_1080P_30: EncodingPreset
ENCODING_PRESET_H264_1080P_60: EncodingPreset
ENCODING_PRESET_PORTRAIT_H264_720P_30: EncodingPreset
ENCODING_PRESET_PORTRAIT_H264_720P_60: EncodingPreset
ENCODING_PRESET_PORTRAIT_H264_1080P_30: EncodingPreset
ENCODING_PRESET_PORTRAIT_H264_1080P_60: EncodingPreset
ENCODING_PRESET_PASSTHROUGH: EncodingPreset
ENCODED_FILE_TYPE_UNSPECIFIED: EncodedFileType
ENCODED_FILE_TYPE_DEFAULT_FILETYPE: EncodedFileType
ENCODED_FILE_TYPE_MP4: EncodedFileType
ENCODED_FILE_TYPE_OGG: EncodedFileType
ENCODED_FILE_TYPE_MP3: EncodedFileType
SEGMENTED_FILE_PROTOCOL_UNSPECIFIED: SegmentedFileProtocol
SEGMENTED_FILE_PROTOCOL_DEFAULT_SEGMENTED_FILE_PROTOCOL: SegmentedFileProtocol
SEGMENTED_FILE_PROTOCOL_HLS_PROTOCOL: SegmentedFileProtocol
SEGMENTED_FILE_PROTOCOL_HLS_FMP4_PROTOCOL: SegmentedFileProtocol
SEGMENTED_FILE_SUFFIX_UNSPECIFIED: SegmentedFileSuffix
SEGMENTED_FILE_SUFFIX_INDEX: SegmentedFileSuffix
SEGMENTED_FILE_SUFFIX_TIMESTAMP: SegmentedFileSuffix
IMAGE_FILE_SUFFIX_UNSPECIFIED: ImageFileSuffix
IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_INDEX: ImageFileSuffix
IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_TIMESTAMP: ImageFileSuffix
IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_NONE_OVERWRITE: ImageFileSuffix
IMAGE_CODEC_UNSPECIFIED: ImageCodec
IMAGE_CODEC_IC_DEFAULT: ImageCodec
IMAGE_CODEC_IC_JPEG: ImageCodec
AUDIO_CODEC_UNSPECIFIED: AudioCodec
AUDIO_CODEC_DEFAULT_AC: AudioCodec
AUDIO_CODEC_OPUS: AudioCodec
AUDIO_CODEC_AAC: AudioCodec
AUDIO_CODEC_AC_MP3: AudioCodec
VIDEO_CODEC_UNSPECIFIED: VideoCodec
VIDEO_CODEC_DEFAULT_VC: VideoCodec
VIDEO_CODEC_H264_BASELINE: VideoCodec
VIDEO_CODEC_H264_MAIN: VideoCodec
VIDEO_CODEC_H264_HIGH: VideoCodec
VIDEO_CODEC_VP8: VideoCodec

class RoomConfig(_message.Message):
    __slots__ = ("name", "empty_timeout", "departure_timeout", "max_participants", "metadata", "egress", "min_playout_delay", "max_playout_delay", "sync_streams", "agents", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMPTY_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    DEPARTURE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    MIN_PLAYOUT_DELAY_FIELD_NUMBER: _ClassVar[int]
    MAX_PLAYOUT_DELAY_FIELD_NUMBER: _ClassVar[int]
    SYNC_STREAMS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    empty_timeout: int
    departure_timeout: int
    max_participants: int
    metadata: str
    egress: RoomEgress
    min_playout_delay: int
    max_playout_delay: int
    sync_streams: bool
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    tags: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., empty_timeout: _Optional[int] = ..., departure_timeout: _Optional[int] = ..., max_participants: _Optional[int] = ..., metadata: _Optional[str] = ..., egress: _Optional[_Union[RoomEgress, _Mapping]] = ..., min_playout_delay: _Optional[int] = ..., max_playout_delay: _Optional[int] = ..., sync_streams: _Optional[bool] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RoomAgentDispatch(_message.Message):
    __slots__ = ("agent_name", "metadata", "restart_policy", "deployment", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RESTART_POLICY_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    agent_name: str
    metadata: str
    restart_policy: JobRestartPolicy
    deployment: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, agent_name: _Optional[str] = ..., metadata: _Optional[str] = ..., restart_policy: _Optional[_Union[JobRestartPolicy, str]] = ..., deployment: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RoomEgress(_message.Message):
    __slots__ = ("room", "participant", "tracks")
    ROOM_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    room: RoomCompositeEgress
    participant: ParticipantEgress
    tracks: TrackEgress
    def __init__(self, room: _Optional[_Union[RoomCompositeEgress, _Mapping]] = ..., participant: _Optional[_Union[ParticipantEgress, _Mapping]] = ..., tracks: _Optional[_Union[TrackEgress, _Mapping]] = ...) -> None: ...

class RoomCompositeEgress(_message.Message):
    __slots__ = ("layout", "audio_only", "audio_mixing", "video_only", "preset", "advanced", "file_outputs", "segment_outputs", "image_outputs")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_ONLY_FIELD_NUMBER: _ClassVar[int]
    AUDIO_MIXING_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ONLY_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    ADVANCED_FIELD_NUMBER: _ClassVar[int]
    FILE_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    layout: str
    audio_only: bool
    audio_mixing: AudioMixing
    video_only: bool
    preset: EncodingPreset
    advanced: EncodingOptions
    file_outputs: _containers.RepeatedCompositeFieldContainer[FileOutput]
    segment_outputs: _containers.RepeatedCompositeFieldContainer[SegmentOutput]
    image_outputs: _containers.RepeatedCompositeFieldContainer[ImageOutput]
    def __init__(self, layout: _Optional[str] = ..., audio_only: _Optional[bool] = ..., audio_mixing: _Optional[_Union[AudioMixing, str]] = ..., video_only: _Optional[bool] = ..., preset: _Optional[_Union[EncodingPreset, str]] = ..., advanced: _Optional[_Union[EncodingOptions, _Mapping]] = ..., file_outputs: _Optional[_Iterable[_Union[FileOutput, _Mapping]]] = ..., segment_outputs: _Optional[_Iterable[_Union[SegmentOutput, _Mapping]]] = ..., image_outputs: _Optional[_Iterable[_Union[ImageOutput, _Mapping]]] = ...) -> None: ...

class ParticipantEgress(_message.Message):
    __slots__ = ("preset", "advanced", "file_outputs", "segment_outputs")
    PRESET_FIELD_NUMBER: _ClassVar[int]
    ADVANCED_FIELD_NUMBER: _ClassVar[int]
    FILE_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    preset: EncodingPreset
    advanced: EncodingOptions
    file_outputs: _containers.RepeatedCompositeFieldContainer[FileOutput]
    segment_outputs: _containers.RepeatedCompositeFieldContainer[SegmentOutput]
    def __init__(self, preset: _Optional[_Union[EncodingPreset, str]] = ..., advanced: _Optional[_Union[EncodingOptions, _Mapping]] = ..., file_outputs: _Optional[_Iterable[_Union[FileOutput, _Mapping]]] = ..., segment_outputs: _Optional[_Iterable[_Union[SegmentOutput, _Mapping]]] = ...) -> None: ...

class TrackEgress(_message.Message):
    __slots__ = ("filepath", "disable_manifest")
    FILEPATH_FIELD_NUMBER: _ClassVar[int]
    DISABLE_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    filepath: str
    disable_manifest: bool
    def __init__(self, filepath: _Optional[str] = ..., disable_manifest: _Optional[bool] = ...) -> None: ...

class FileOutput(_message.Message):
    __slots__ = ("file_type", "filepath", "disable_manifest")
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    FILEPATH_FIELD_NUMBER: _ClassVar[int]
    DISABLE_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    file_type: EncodedFileType
    filepath: str
    disable_manifest: bool
    def __init__(self, file_type: _Optional[_Union[EncodedFileType, str]] = ..., filepath: _Optional[str] = ..., disable_manifest: _Optional[bool] = ...) -> None: ...

class SegmentOutput(_message.Message):
    __slots__ = ("protocol", "filename_prefix", "playlist_name", "live_playlist_name", "segment_duration", "filename_suffix", "disable_manifest")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FILENAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PLAYLIST_NAME_FIELD_NUMBER: _ClassVar[int]
    LIVE_PLAYLIST_NAME_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_DURATION_FIELD_NUMBER: _ClassVar[int]
    FILENAME_SUFFIX_FIELD_NUMBER: _ClassVar[int]
    DISABLE_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    protocol: SegmentedFileProtocol
    filename_prefix: str
    playlist_name: str
    live_playlist_name: str
    segment_duration: int
    filename_suffix: SegmentedFileSuffix
    disable_manifest: bool
    def __init__(self, protocol: _Optional[_Union[SegmentedFileProtocol, str]] = ..., filename_prefix: _Optional[str] = ..., playlist_name: _Optional[str] = ..., live_playlist_name: _Optional[str] = ..., segment_duration: _Optional[int] = ..., filename_suffix: _Optional[_Union[SegmentedFileSuffix, str]] = ..., disable_manifest: _Optional[bool] = ...) -> None: ...

class ImageOutput(_message.Message):
    __slots__ = ("capture_interval", "width", "height", "filename_prefix", "filename_suffix", "image_codec", "disable_manifest")
    CAPTURE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FILENAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILENAME_SUFFIX_FIELD_NUMBER: _ClassVar[int]
    IMAGE_CODEC_FIELD_NUMBER: _ClassVar[int]
    DISABLE_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    capture_interval: int
    width: int
    height: int
    filename_prefix: str
    filename_suffix: ImageFileSuffix
    image_codec: ImageCodec
    disable_manifest: bool
    def __init__(self, capture_interval: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., filename_prefix: _Optional[str] = ..., filename_suffix: _Optional[_Union[ImageFileSuffix, str]] = ..., image_codec: _Optional[_Union[ImageCodec, str]] = ..., disable_manifest: _Optional[bool] = ...) -> None: ...

class EncodingOptions(_message.Message):
    __slots__ = ("width", "height", "depth", "framerate", "audio_codec", "audio_bitrate", "audio_frequency", "video_codec", "video_bitrate", "key_frame_interval", "audio_quality", "video_quality")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    FRAMERATE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CODEC_FIELD_NUMBER: _ClassVar[int]
    AUDIO_BITRATE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    VIDEO_CODEC_FIELD_NUMBER: _ClassVar[int]
    VIDEO_BITRATE_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_QUALITY_FIELD_NUMBER: _ClassVar[int]
    VIDEO_QUALITY_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    depth: int
    framerate: int
    audio_codec: AudioCodec
    audio_bitrate: int
    audio_frequency: int
    video_codec: VideoCodec
    video_bitrate: int
    key_frame_interval: float
    audio_quality: int
    video_quality: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., depth: _Optional[int] = ..., framerate: _Optional[int] = ..., audio_codec: _Optional[_Union[AudioCodec, str]] = ..., audio_bitrate: _Optional[int] = ..., audio_frequency: _Optional[int] = ..., video_codec: _Optional[_Union[VideoCodec, str]] = ..., video_bitrate: _Optional[int] = ..., key_frame_interval: _Optional[float] = ..., audio_quality: _Optional[int] = ..., video_quality: _Optional[int] = ...) -> None: ...
