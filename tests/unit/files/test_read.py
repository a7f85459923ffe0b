"""Reading a file: what is refused, and that nothing waits."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private


def test_a_file_is_read_with_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"title: x\n")
    file = Document.read(path)
    assert (file.path, file.content, file.data) == (path, b"title: x\n", {"title": "x"})
    assert read_bytes(path) == b"title: x\n"


def test_only_private_files_need_to_be_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    path.chmod(0o644)
    assert read_bytes(path) == b"x"
    with pytest.raises(ConfigError, match="can be read by others; run: chmod o= "):
        read_private(path)
    path.chmod(0o640)
    assert read_private(path) == b"x"


def test_what_was_checked_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is the opened file's: swapping the name for another file's in between gains nothing."""
    public, link = tmp_path / "public", tmp_path / "link"
    public.write_bytes(b"planted")
    public.chmod(0o644)
    link.symlink_to(public)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: pytest.fail("looked at the name"))
    with pytest.raises(ConfigError, match="can be read by others"):
        read_private(link)


@pytest.mark.parametrize("read", [read_bytes, read_private, Document.read])
def test_what_cant_be_read_says_why(tmp_path: Path, read: object) -> None:
    assert callable(read)
    for path, why in [
        (tmp_path / "missing", "there is no such file"),
        (tmp_path, "can't be read: Is a directory"),
        (Path("a\0b"), "isn't a path: it holds a NUL character"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert caught.value.message == why


@pytest.mark.parametrize("read", [read_bytes, read_private, Document.read])
@pytest.mark.parametrize("kind", ["pipe", "pipe with a writer", "socket", "device", "link to a device"])
def test_what_isnt_a_plain_file_is_refused_without_waiting(tmp_path: Path, kind: str, read: object) -> None:
    assert callable(read)
    path, before = tmp_path / "f", len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with contextlib.ExitStack() as closing:
        if kind.startswith("pipe"):
            os.mkfifo(path, 0o600)
        if kind == "pipe with a writer":
            closing.callback(os.close, os.open(path, os.O_RDWR))
        if kind == "socket":
            closing.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        if kind == "device":
            path = Path("/dev/zero")
        if kind == "link to a device":
            path.symlink_to("/dev/zero")
        with pytest.raises(ConfigError) as caught:
            read(path)
    assert caught.value.message == "isn't a plain file"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_shells_process_substitution_is_read_to_its_end() -> None:
    """As in `policy diff <(git show HEAD:policy.yaml) policy.yaml`."""
    reader, writer = os.pipe()

    def write() -> None:
        os.write(writer, b"first ")
        os.write(writer, b"second")
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert read_bytes(Path(f"/dev/fd/{reader}")) == b"first second"
    finally:
        thread.join()
        os.close(reader)


def test_a_file_too_large_to_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    monkeypatch.setattr("livekit_auth_server.files.read._MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="is over 10 bytes"):
        read_bytes(path)
