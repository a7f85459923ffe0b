"""protos-plain is the contract, with nothing of the validator and nothing that protoc would miss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from livekit_auth.v1 import (
    auth_service_pb2,
    decision_pb2,
    errors_pb2,
    grants_pb2,
    permissions_pb2,
    room_config_pb2,
    webhook_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "protos-plain"
MODULES = (
    auth_service_pb2,
    decision_pb2,
    errors_pb2,
    grants_pb2,
    permissions_pb2,
    room_config_pb2,
    webhook_pb2,
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """What protoc makes of the folder alone, by the files' names."""
    image = tmp_path_factory.mktemp("plain") / "image.binpb"
    sources = sorted(str(path) for path in (PLAIN / "livekit_auth/v1").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PLAIN), f"--descriptor_set_out={image}", *sources]
    subprocess.run(command, check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    return {file.name: file for file in files}


def test_it_is_the_contract(compiled: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    expected = {}
    for module in MODULES:
        file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        expected[file.name] = file
    assert compiled == expected


def test_no_comment_is_lost() -> None:
    for path in (ROOT / "protos/livekit_auth/v1").glob("*.proto"):
        comments = [line.strip() for line in path.read_text().splitlines() if line.strip().startswith("//")]
        plain = (PLAIN / path.relative_to(ROOT / "protos")).read_text()
        assert [line.strip() for line in plain.splitlines() if line.strip().startswith("//")] == comments
