"""The file against what happens to files: full disks, short writes, rotation, removal, other hands."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth_server.audit.chained_file import ChainedFile, reason
from livekit_auth_server.audit.sink import SinkError
from livekit_auth_server.audit.verify import verify_files
from livekit_auth_server.core.chain import MAX_LINE
from support.fakes import FakeClock
from support.mounts import small_disk
from support.records import Line

if TYPE_CHECKING:
    from livekit_auth_server.core.chain import Head

ONE = Line({"n": 1})
FULL = OSError(errno.ENOSPC, "No space left on device")


@dataclass
class System:
    """write and fdatasync that fail when told to; `short` is how many bytes the next write takes."""

    short: int | None = None
    on_write: Exception | None = None
    on_sync: Exception | None = None
    syncs: list[int] = field(default_factory=list)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.on_write:
            raise self.on_write
        return os.write(descriptor, data if self.short is None else data[: self.short])

    def sync(self, descriptor: int) -> None:
        self.syncs.append(os.fstat(descriptor).st_size)
        if self.on_sync:
            raise self.on_sync


def file(path: Path, **fields: Any) -> ChainedFile:
    return ChainedFile(path, FakeClock(), **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.0.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def whys(path: Path) -> list[str]:
    """Why each segment was begun."""
    return [line["why"] for line in lines(path) if line["kind"] == "segment"]


def assert_whole(*paths: Path, head: Head | None = None) -> None:
    verdict = verify_files(paths, [head] if head else [])
    assert verdict.problems == []


def test_lines_are_synced_when_append_returns(path: Path) -> None:
    system = System()
    sink = file(path, write=system.write, sync=system.sync)
    sink.open()
    head = sink.append([ONE, ONE])
    assert system.syncs[-1] == path.stat().st_size
    assert [line.get("n") for line in lines(path)] == [None, 1, 1]
    assert head == sink.head
    assert head.sequence == 3
    assert_whole(path, head=head)


def test_others_cant_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        folder = path.parent / "new" / "audit"
        file(folder / path.name).open()
    finally:
        os.umask(before)
    assert (folder / path.name).stat().st_mode & 0o007 == 0
    assert folder.stat().st_mode & 0o007 == 0


def test_a_restart_goes_on_with_the_chain(path: Path) -> None:
    first = file(path)
    first.open()
    head = first.append([ONE])
    first.close()
    second = file(path)
    second.open()
    assert second.head is not None
    assert (second.head.chain, second.head.sequence) == (head.chain, 3)
    assert whys(path) == ["started", "started"]
    assert_whole(path, head=head)


def test_there_is_one_writer(path: Path) -> None:
    first = file(path)
    first.open()
    with pytest.raises(SinkError, match="another process writes this file"):
        file(path).open()
    first.append([ONE])
    assert_whole(path)


@pytest.mark.parametrize("half", [b'{"chain":"', b'{"chain":"0123', b'{"c'])
@pytest.mark.parametrize("lines_before", [0, 3])
def test_a_half_line_of_a_crash_is_cut_off_at_start(path: Path, half: bytes, lines_before: int) -> None:
    if lines_before:
        sink = file(path)
        sink.open()
        sink.append([ONE] * lines_before)
        sink.close()
    with path.open("ab") as stream:
        stream.write(half)
    file(path).open()
    assert_whole(path)
    assert len(lines(path)) == (lines_before + 2 if lines_before else 1)


LONG = Line({"padding": "x" * 900})


@pytest.mark.parametrize("half", [b"", b'{"chain":"0123'])
def test_a_restart_goes_on_in_a_file_that_is_longer_than_what_is_looked_at(path: Path, half: bytes) -> None:
    first = file(path)
    first.open()
    head = first.append([LONG] * 2500)
    first.close()
    size = path.stat().st_size
    assert size > 2 * MAX_LINE
    with path.open("ab") as stream:
        stream.write(half)
    second = file(path)
    second.open()
    head_after = second.append([ONE])
    second.append([ONE])
    assert (head_after.chain, head_after.sequence) == (head.chain, head.sequence + 2)
    assert path.read_bytes()[size:].count(b"\n") == 3
    assert_whole(path, head=head)


def test_the_name_of_a_new_file_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    sink = file(path)
    sink.open()
    assert synced == [str(path.parent)]
    sink.append([ONE])
    path.rename(path.with_name("audit.0.jsonl.1"))
    sink.append([ONE])
    assert synced == [str(path.parent)] * 2, "once for each file, and none for a line"


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"no line break", b"\0" * 100, b"x" * 2_000_000, b"{}\n"])
def test_a_file_that_is_no_audit_trail_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SinkError, match="audit trail; move"):
        file(path).open()
    assert path.read_bytes() == content


def test_a_short_write_says_why_where_the_system_does(path: Path) -> None:
    """A disk that fills up takes a part first, and says that it is full only when it is asked for the rest."""
    system, taken = System(), [10]

    def write(descriptor: int, data: bytes) -> int:
        if not taken:
            raise FULL
        return os.write(descriptor, data[: taken.pop()])

    sink = file(path, sync=system.sync)
    sink.open()
    before = path.read_bytes()
    sink.write = write
    with pytest.raises(OSError, match="No space left") as caught:
        sink.append([ONE])
    assert reason(caught.value) == "the disk is full"
    assert path.read_bytes() == before


def test_a_symbolic_link_isnt_written_through(path: Path) -> None:
    path.symlink_to(path.with_name("target"))
    with pytest.raises(OSError, match="symbolic links"):
        file(path).open()
    assert not path.with_name("target").exists()


@pytest.mark.parametrize(
    "failure",
    [
        {"on_write": FULL},
        {"on_sync": OSError(errno.EIO, "Input/output error")},
        {"short": 0},
        {"short": 1},
        {"short": 150},
        {"short": 250},
    ],
    ids=str,
)
def test_a_failed_write_leaves_nothing_and_the_chain_goes_on(path: Path, failure: dict[str, Any]) -> None:
    system = System()
    sink = file(path, write=system.write, sync=system.sync)
    sink.open()
    head, before = sink.append([ONE]), path.read_bytes()
    for name, value in failure.items():
        setattr(system, name, value)
    for _ in range(2):
        with pytest.raises((OSError, SinkError)):
            sink.append([ONE, ONE])
        assert path.read_bytes() == before
        assert sink.head == head
    system.short = system.on_write = system.on_sync = None
    sink.append([Line({"n": 2})])
    assert [line.get("n") for line in lines(path)] == [None, 1, None, 2]
    assert whys(path)[1].startswith("after a failure: ")
    assert_whole(path, head=head)


def test_what_cant_even_be_cut_off_is_cut_off_before_the_next_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(on_sync=None)
    sink = file(path, write=system.write, sync=system.sync)
    sink.open()
    head = sink.append([ONE])
    system.on_sync = OSError(errno.EIO, "Input/output error")
    real = os.ftruncate
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        sink.append([Line({"n": 666})])
    assert '"n":666' in path.read_text()
    system.on_sync = None
    with pytest.raises(OSError, match="Input/output"):
        sink.append([ONE])
    monkeypatch.setattr(os, "ftruncate", real)
    sink.append([ONE])
    assert '"n":666' not in path.read_text()
    assert_whole(path, head=head)


def test_rotation_by_rename_goes_on_in_a_new_file(path: Path) -> None:
    sink = file(path)
    sink.open()
    head = sink.append([ONE])
    rotated = path.rename(path.with_name("audit.0.jsonl.1"))
    sink.append([ONE])
    assert whys(path) == ["rotated"]
    assert len(lines(rotated)) == 2
    assert_whole(path, rotated, head=head)
    assert_whole(rotated, path, head=sink.head)


def test_a_removed_file_fails_what_is_at_hand_and_then_a_new_one_begins(path: Path) -> None:
    sink = file(path)
    sink.open()
    head = sink.append([ONE])
    path.unlink()
    with pytest.raises(SinkError, match="the file was removed"):
        sink.append([ONE])
    assert not path.exists()
    sink.append([ONE])
    assert whys(path) == ["the file before was removed"]
    verdict = verify_files([path], [head])
    assert "isn't in these files" in verdict.problems[0].what  # what was removed shows


def test_a_file_moved_over_it_counts_as_a_removal(path: Path) -> None:
    sink = file(path)
    sink.open()
    other = path.with_name("other")
    other.write_text("mine\n")
    other.rename(path)
    with pytest.raises(SinkError, match="removed"):
        sink.append([ONE])
    with pytest.raises(SinkError, match="isn't this chain's; it is kept as"):
        sink.append([ONE])
    sink.append([ONE])
    [kept] = path.parent.glob("*.damaged-*")
    assert kept.read_text() == "mine\n"
    assert whys(path)[0].startswith("the file before isn't this chain's, and is kept as audit.0.jsonl.damaged-")


@pytest.mark.parametrize("harm", ["append", "truncate", "empty"])
def test_a_file_that_somebody_else_wrote_is_set_aside(path: Path, harm: str) -> None:
    sink = file(path)
    sink.open()
    head = sink.append([ONE, ONE])
    if harm == "append":
        with path.open("a") as stream:
            stream.write("more\n")
    else:
        os.truncate(path, 0 if harm == "empty" else path.stat().st_size - 30)
    harmed = path.read_bytes()
    with pytest.raises(SinkError, match="somebody else; it is kept as"):
        sink.append([ONE])
    sink.append([ONE])
    [kept] = path.parent.glob("*.damaged-*")
    assert kept.read_bytes() == harmed
    assert verify_files([path.parent], [head]).problems


def test_what_somebody_else_wrote_while_the_disk_failed_is_set_aside_too(path: Path) -> None:
    system = System()
    sink = file(path, write=system.write, sync=system.sync)
    sink.open()
    system.on_write = FULL
    with pytest.raises(OSError, match="space"):
        sink.append([ONE])
    with path.open("a") as stream:
        stream.write("more\n")
    system.on_write = None
    with pytest.raises(SinkError, match="kept as"):
        sink.append([ONE])
    sink.append([ONE])
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_a_copy_put_in_its_place_while_the_disk_failed_is_taken_up(path: Path) -> None:
    """As when the folder moves to a larger disk."""
    system = System()
    sink = file(path, write=system.write, sync=system.sync)
    sink.open()
    head = sink.append([ONE])
    system.on_write = FULL
    with pytest.raises(OSError, match="space"):
        sink.append([ONE])
    copy = path.read_bytes()
    path.unlink()
    path.with_name("hold").write_text("so that the inode isn't used again")
    path.write_bytes(copy)
    system.on_write = None
    sink.append([ONE])
    assert_whole(path, head=head)


def fits(sink: ChainedFile) -> bool:
    """Whether one more line fits on the disk."""
    try:
        sink.append([ONE])
    except (OSError, SinkError):
        return False
    return True


def test_a_full_disk_fails_and_recovers_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        filler, sink = disk / "filler", file(disk / "audit.0.jsonl")
        sink.open()
        filler.write_bytes(b"x" * 40_000)
        head = sink.head
        while fits(sink):
            head = sink.head
        size = sink.path.stat().st_size
        for _ in range(20):
            with pytest.raises((OSError, SinkError)):
                sink.append([ONE] * 200)
        assert sink.path.stat().st_size == size  # not a line more, not even segments
        filler.unlink()
        sink.append([ONE])
        assert whys(sink.path)[-1].startswith("after a failure: ")
        assert_whole(sink.path, head=head)
        sink.close()


def test_a_disk_that_turns_read_only_fails_and_recovers(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024 * 1024) as disk:
        sink = file(disk / "audit.0.jsonl", sync=lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(OSError, match="I/O"):  # closes the file, or the disk couldn't be remounted
            sink.open()
        sink.sync = os.fdatasync
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OSError, match="Read-only"):
            sink.append([ONE])
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        sink.append([ONE])
        assert_whole(sink.path)
        sink.close()


def test_a_limit_on_the_files_size_fails_without_half_a_line(path: Path) -> None:
    """RLIMIT_FSIZE, in a process of its own: the write that crosses it is short, the next ones fail."""
    script = f"""
import resource, signal
from pathlib import Path
from livekit_auth_server.audit.chained_file import ChainedFile, reason
from livekit_auth_server.audit.sink import SinkError
from livekit_auth_server.core.audit import Dropped, Withheld
from livekit_auth_server.process.clock import SystemClock
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
sink = ChainedFile(Path({str(path)!r}), SystemClock())
sink.open()
failed = 0
for _ in range(20):
    try:
        sink.append([Dropped(1, 1)])
    except (OSError, SinkError):
        failed += 1
assert failed > 10, failed
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.append([Withheld("d2", 1, "killed")])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert_whole(path)
    assert whys(path)[-1].startswith("after a failure: ")
    assert lines(path)[-1]["decision_id"] == "d2"
