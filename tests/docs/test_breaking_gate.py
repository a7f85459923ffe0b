"""buf refuses every change that breaks generated code, and permits additions. `make check` runs it on each release."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
SERVICE, PERMISSIONS = "auth_service.proto", "permissions.proto"
RPC = re.compile(r"  rpc GetServerInfo\(.*?\n  }\n", re.DOTALL)
MESSAGE = re.compile(r"message MethodInfo {\n.*?\n}\n", re.DOTALL)
USE = re.compile(r"  repeated MethodInfo methods = (\d+);\n")

Files = dict[str, str]


def delete_rpc(files: Files) -> None:
    files[SERVICE] = RPC.sub("", files[SERVICE])


def rename_rpc(files: Files) -> None:
    files[SERVICE] = files[SERVICE].replace("rpc GetServerInfo(", "rpc ShowServerInfo(")


def delete_message(files: Files) -> None:
    files[SERVICE] = USE.sub(r'  reserved \1;\n  reserved "methods";\n', MESSAGE.sub("", files[SERVICE]))


def rename_field(files: Files) -> None:
    files[SERVICE] = files[SERVICE].replace("string certificate_serial = ", "string certificate_number = ")


def move_message(files: Files) -> None:
    found = MESSAGE.search(files[SERVICE])
    assert found
    files[PERMISSIONS] += "\n" + found[0]
    files[SERVICE] = MESSAGE.sub("", files[SERVICE])


def add_rpc_field_and_value(files: Files) -> None:
    files[SERVICE] = (
        files[SERVICE]
        .replace("service AuthService {\n", "service AuthService {\n  rpc Added(Addition) returns (Addition);\n")
        .replace("message MethodInfo {\n", "message Addition {}\nmessage MethodInfo {\n  string added = 99;\n")
        .replace(
            "DUPLICATE_STATUS_UNSPECIFIED = 0;\n", "DUPLICATE_STATUS_UNSPECIFIED = 0;\n DUPLICATE_STATUS_ADDED = 99;\n"
        )
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract of this tree, frozen as `make proto-release` does it."""
    image = tmp_path_factory.mktemp("release") / "image.binpb"
    build = ["buf", "build", "protos", "--as-file-descriptor-set", "--exclude-source-info", "--output", str(image)]
    subprocess.run(build, cwd=ROOT, check=True)
    return image


def complaints(directory: Path, release: Path, change: Callable[[Files], None]) -> str:
    """What buf says of a changed copy of the contract; empty if it permits the change."""
    shutil.copy(ROOT / "buf.yaml", directory)
    for module in ("protos", "third_party/protos"):
        shutil.copytree(ROOT / module, directory / module)
    folder = directory / "protos/livekit_auth/v1"
    files = {path.name: path.read_text() for path in folder.glob("*.proto")}
    before = dict(files)
    change(files)
    assert files != before
    for name, text in files.items():
        (folder / name).write_text(text)
    command = ["buf", "breaking", "protos", "--against", str(release)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    assert (done.returncode == 0) == (not done.stdout)
    return done.stdout


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (delete_rpc, 'Previously present RPC "GetServerInfo" on service "AuthService" was deleted'),
        (rename_rpc, 'Previously present RPC "GetServerInfo" on service "AuthService" was deleted'),
        (delete_message, 'Previously present message "MethodInfo" was deleted'),
        (rename_field, 'Field "4" on message "GetCallerResponse" changed name'),
        (move_message, 'Previously present message "MethodInfo" was deleted'),
    ],
)
def test_a_breaking_change_is_refused(
    tmp_path: Path, release: Path, change: Callable[[Files], None], complaint: str
) -> None:
    assert complaint in complaints(tmp_path, release, change)


def test_an_addition_is_permitted(tmp_path: Path, release: Path) -> None:
    assert complaints(tmp_path, release, add_rpc_field_and_value) == ""
