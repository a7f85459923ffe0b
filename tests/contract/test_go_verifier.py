"""Tokens of this mint before livekit-server's own verifier: github.com/livekit/protocol v1.34 (tests/go-mint)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol.room import RoomConfiguration

from livekit_auth.v1.room_config_pb2 import RoomConfig
from livekit_auth_server.core.mint import claims, mint
from livekit_auth_server.core.policy import TokenRequest
from livekit_auth_server.service.convert import room_config
from support.examples import examples
from support.handlers import KEY, SECRET
from support.messages import enum_of, messages, plain_values
from support.oracle import oracle
from support.policies import JOIN, granted, token_requests

ROOT = Path(__file__).parents[2]

# Claims that LiveKit's Go code of this version doesn't know, and passes over.
NEWER_GRANTS = {"destinationRoom", "canManageAgentSession"}
NEWER_GROUPS = {"inference", "observability", "agent", "agentEndpoint", "agentThread"}
# Fields and values of a room configuration that it doesn't know either; there it refuses the whole token.
NEWER_FIELDS = {
    "RoomConfig.metadata": {"metadata": "x"},
    "RoomConfig.tags": {"tags": {"a": "b"}},
    "RoomAgentDispatch.restart_policy": {"agents": [{"restart_policy": 2}]},
    "RoomAgentDispatch.deployment": {"agents": [{"deployment": "blue"}]},
    "RoomAgentDispatch.attributes": {"agents": [{"attributes": {"a": "b"}}]},
}
NEWER_VALUES = {
    "ENCODING_PRESET_PASSTHROUGH": {"egress": {"room": {"preset": 9}}},
    "AUDIO_CODEC_AC_MP3": {"egress": {"room": {"advanced": {"audio_codec": 4}}}},
    "ENCODED_FILE_TYPE_MP3": {"egress": {"room": {"file_outputs": [{"file_type": 4}]}}},
    "SEGMENTED_FILE_PROTOCOL_HLS_FMP4_PROTOCOL": {"egress": {"room": {"segment_outputs": [{"protocol": 3}]}}},
    "IMAGE_FILE_SUFFIX_IMAGE_SUFFIX_NONE_OVERWRITE": {"egress": {"room": {"image_outputs": [{"filename_suffix": 3}]}}},
}


def known_values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a room configuration's field that this LiveKit knows."""
    if field.type != FieldDescriptor.TYPE_ENUM:
        return plain_values(field)
    values = enum_of(field).values
    return st.sampled_from([value.number for value in values if value.name not in NEWER_VALUES])


known_configs = messages(RoomConfig, known_values, without=frozenset(NEWER_FIELDS))


@pytest.fixture(scope="session")
def go_verify():
    """Builds the verifier once into .cache and asks it."""
    go = shutil.which("go")
    if go is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Go is missing: the checks need it")
        pytest.skip("Go isn't installed")
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    program = cache / "go-mint"
    with (cache / "go-mint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = [go, "build", "-mod=readonly", "-o", str(program), "."]
        done = subprocess.run(build, cwd=ROOT / "tests/go-mint", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with oracle([program]) as ask:
        yield lambda token: ask({"key": KEY.id, "secret": SECRET, "token": token})


def go_view(payload: dict[str, Any]) -> dict[str, Any]:
    """The claims as Go's ClaimGrants marshals them: without what is newer, and false only where optional."""
    known = {name: value for name, value in payload.items() if name not in NEWER_GROUPS | {"sub", "iss", "nbf", "exp"}}
    for group in ("video", "sip"):
        if group in known:
            kept = {name: value for name, value in known[group].items() if name not in NEWER_GRANTS}
            known[group] = {name: value for name, value in kept.items() if value or name in OPTIONAL}
    return known


OPTIONAL = {"canPublish", "canSubscribe", "canPublishData", "canUpdateOwnMetadata", "canSubscribeMetrics"}


def normal(grants: dict[str, Any]) -> dict[str, Any]:
    """With the room configuration as LiveKit's message, whatever form its JSON has."""
    if "roomConfig" not in grants:
        return grants
    return {**grants, "roomConfig": ParseDict(grants["roomConfig"], RoomConfiguration())}


@examples(300)
@given(request=token_requests(), config=st.none() | known_configs)
def test_livekits_go_verifier_reads_what_was_granted(go_verify, request, config):
    now = int(time.time())
    request = replace(request, ttl=600, room_config=None if config is None else room_config(config))
    grant = granted(request)
    answer = go_verify(mint(grant, KEY, now))
    assert "error" not in answer
    assert answer["key"] == KEY.id
    assert answer.get("identity", "") == request.identity
    payload = json.loads(claims(grant, KEY, now))
    assert normal(answer["grants"]) == normal(go_view(payload))


@pytest.mark.parametrize("newer", [*NEWER_FIELDS.items(), *NEWER_VALUES.items()], ids=lambda newer: newer[0])
def test_a_livekit_that_is_too_old_for_a_room_config_refuses_the_whole_token(go_verify, newer):
    """So a newer field never takes half effect; and these lists can't hold what that version does know."""
    config = room_config(ParseDict(newer[1], RoomConfig()))
    token = mint(granted(TokenRequest(access=JOIN, room="r", identity="i", room_config=config)), KEY, int(time.time()))
    error = go_verify(token)["error"]
    assert "unknown field" in error or "invalid value for enum field" in error


def test_the_verifier_can_say_no(go_verify):
    token = mint(granted(TokenRequest(access=JOIN, room="r", identity="i", ttl=60)), KEY, int(time.time()))
    assert "error" not in go_verify(token)
    head, body, signature = token.split(".")
    assert "error" in go_verify(f"{head}.{body}.{'A' * len(signature)}")
    assert "error" in go_verify(mint(granted(TokenRequest(access=JOIN, room="r", identity="i", ttl=60)), KEY, 1))
