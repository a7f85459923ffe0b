"""A file of secrets is replaced in one step, as what it was: its owner, mode and access; or not at all."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.files import private_file
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.private_file import editing, write_new

if TYPE_CHECKING:
    from pathlib import Path


def private(folder: Path, name: str = "keys.yaml", mode: int = 0o600) -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(b"old")
    path.chmod(mode)
    return path


def replace(path: Path, content: bytes = b"new") -> None:
    with editing(path, patience=0.05) as file:
        file.replace(content)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        replace(path)
    assert caught.value.where == str(path)
    return caught.value.message


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o400])
def test_the_new_file_has_the_mode_of_the_old_one(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path, mode=mode)
    number = path.stat().st_ino
    replace(path)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    assert path.stat().st_ino != number
    assert [file.name for file in tmp_path.iterdir()] == ["keys.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_new_file_has_the_owner_and_group_of_the_old_one(tmp_path: Path) -> None:
    path = private(tmp_path, mode=0o640)
    os.chown(path, 12345, 23456)
    replace(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 23456, 0o640)


def test_a_file_whose_owner_cant_be_kept_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = private(tmp_path)
    owner = path.stat()
    monkeypatch.setattr(os, "fchown", not_permitted)
    monkeypatch.setattr(os, "fstat", lambda _, real=os.fstat: _of_another(real(_)))
    assert "you need to be its owner" in refusal(path)
    assert (path.read_bytes(), path.stat().st_ino) == (b"old", owner.st_ino)
    assert [file.name for file in tmp_path.iterdir()] == ["keys.yaml"]


def test_a_file_of_another_group_alone_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever isn't root and gives the file to a group of its own."""
    path, given = private(tmp_path, mode=0o640), list[tuple[int, int]]()
    owner = path.stat()
    monkeypatch.setattr(os, "fchown", lambda _, *ids: given.append(ids))
    monkeypatch.setattr(os, "fstat", lambda _, real=os.fstat: _of_another(real(_), field=5))
    replace(path)
    assert given == [(owner.st_uid, owner.st_gid)]


def _of_another(seen: os.stat_result, field: int = 4) -> os.stat_result:
    fields = list(seen)
    fields[field] += 1  # 4 is the user, 5 the group
    return os.stat_result(fields)


def test_the_new_file_has_the_access_list_of_the_old_one(tmp_path: Path) -> None:
    """Without it, what its mask allows would be what the whole group may."""
    path = private(tmp_path, mode=0o640)
    entries = [(1, 6, -1), (2, 4, 12345), (4, 0, -1), (16, 4, -1), (32, 0, -1)]  # u::rw, u:12345:r, g::-, mask r, o::-
    packed = b"".join(
        tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, mode, who in entries
    )
    access = (2).to_bytes(4, "little") + packed
    try:
        os.setxattr(path, "system.posix_acl_access", access)
    except OSError:
        pytest.skip("this file system has no access lists")
    replace(path)
    assert os.getxattr(path, "system.posix_acl_access") == access
    assert path.read_bytes() == b"new"


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = private(tmp_path / "real")
    link = tmp_path / "keys.yaml"
    link.symlink_to("real/keys.yaml")
    replace(link)
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_what_isnt_a_plain_file_of_its_own_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") == "isn't a plain file"
    assert refusal(tmp_path) == "isn't a plain file"
    assert refusal(tmp_path / "missing") == "there is no such file"
    (tmp_path / "dangling").symlink_to("missing")
    assert refusal(tmp_path / "dangling") == "there is no such file"
    (tmp_path / "loop").symlink_to("loop")
    assert "can't be read" in refusal(tmp_path / "loop")
    path = private(tmp_path)
    (tmp_path / "second").hardlink_to(path)
    assert "has a second name" in refusal(path)


def test_a_kubernetes_mount_is_refused(tmp_path: Path) -> None:
    version = tmp_path / "..2026_11_24"
    version.mkdir()
    private(version)
    (tmp_path / "..data").symlink_to("..2026_11_24")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    assert "is mounted by Kubernetes" in refusal(tmp_path / "keys.yaml")


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    assert "can be read by others; run: chmod o=" in refusal(private(tmp_path, mode=0o644))


def test_a_change_by_somebody_else_isnt_overwritten(tmp_path: Path) -> None:
    path = private(tmp_path)
    with editing(path) as file:
        path.write_bytes(b"edited by hand")
        with pytest.raises(ConfigError, match="was changed by somebody else meanwhile"):
            file.replace(b"new")
    assert path.read_bytes() == b"edited by hand"
    with editing(path) as file:
        path.unlink()
        with pytest.raises(ConfigError, match="can't be read: No such file"):
            file.replace(b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_second_editor_waits_for_the_first_and_gives_up(tmp_path: Path) -> None:
    path = private(tmp_path)
    with editing(path):
        assert "another command is changing the file" in refusal(path)
        done = threading.Thread(target=lambda: _append(path))
        done.start()
    done.join(10)
    assert path.read_bytes() == b"old and new"


def test_an_editor_that_waits_gets_the_lock_when_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waiting = private(tmp_path), threading.Event()

    def sleep(seconds: float) -> None:
        waiting.set()
        time.sleep(seconds)

    monkeypatch.setattr(private_file, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    thread = threading.Thread(target=_append, args=(path,))
    with editing(path):
        thread.start()
        assert waiting.wait(10)
        assert path.read_bytes() == b"old"
    thread.join(10)
    assert path.read_bytes() == b"old and new"


def test_nobody_who_can_only_look_into_the_folder_can_hold_up_a_change(tmp_path: Path) -> None:
    """A lock needs an open descriptor and no right to write: anybody can have one of most folders, for ever."""
    path = private(tmp_path)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        replace(path)
    finally:
        os.close(folder)
    assert path.read_bytes() == b"new"


def test_a_file_that_cant_be_locked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert "can't be locked: No locks available" in refusal(private(tmp_path))


def _append(path: Path) -> None:
    with editing(path) as file:
        file.replace(file.content + b" and new")


def test_what_a_killed_editor_left_is_cleared_away(tmp_path: Path) -> None:
    path = private(tmp_path)
    private(tmp_path, ".keys.yaml.new", 0o400)
    replace(path)
    assert [file.name for file in tmp_path.iterdir()] == ["keys.yaml"]
    (tmp_path / ".keys.yaml.new").symlink_to("elsewhere")
    replace(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert not (tmp_path / "elsewhere").exists()


def test_a_new_file_is_its_owners_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "export"
    old = os.umask(0)
    try:
        write_new(path, b"content")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="is there already"):
        write_new(path, b"other")
    assert path.read_bytes() == b"content"
    with pytest.raises(ConfigError, match="can't be written: No such file or directory"):
        write_new(tmp_path / "none" / "export", b"content")
