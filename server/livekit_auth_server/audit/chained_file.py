"""The audit trail's file: lines of a chain, of which all or none are appended and synced. For use by one thread.

Guarantees:
- `append` returns after fdatasync, or raises and leaves the file as it was: after a short write or a failed sync the
  file is truncated to the last synced line, and the chain continues with a segment line that says why;
- a file has one writer (flock);
- a file that was renamed (rotation) isn't touched, and the chain continues in a new one;
- a file that was removed, truncated or written by another process fails the lines at hand before the chain continues;
  what the other process wrote is kept under another name;
- an incomplete last line, as a crash leaves it, is removed at start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.audit.sink import SinkError
from livekit_auth_server.core.chain import MAX_LINE, Head, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from livekit_auth_server.core.audit import AuditLine
    from livekit_auth_server.service.ports import Clock


@dataclass(slots=True)
class ChainedFile:
    """The file at `path`. `head` is that of the last synced line; `write` and `sync` are the operating system's."""

    path: Path
    clock: Clock
    head: Head | None = None
    write: Callable[[int, bytes], int] = os.write
    sync: Callable[[int], None] = os.fdatasync
    _descriptor: int | None = None
    _inode: tuple[int, int] | None = None  # of the file that was written last, open or not
    _end: int = 0  # where its last synced line ends
    _cut: bool = False  # whether a failed write may have left something after that
    _segment: str = "started"  # why the next line is a segment line; empty if it isn't

    def open(self) -> Head:
        """Begins a segment, in an existing or a new file. Raises SinkError and OSError."""
        return self.append(())

    def append(self, lines: Sequence[AuditLine]) -> Head:
        """Writes the lines and syncs them. Without lines it finds out whether it could.

        Raises SinkError, and OSError as the system gives it.
        """
        try:
            descriptor = self._current()
            assert self.head is not None  # noqa: S101 - opening sets it
            head, written = self.head, []
            if self._segment:
                data, head = head.segment(self._segment, int(self.clock.now()))
                written.append(data)
            for line in lines:
                data, head = head.append(line.members())
                written.append(data)
            if written:
                self._write(descriptor, b"".join(written))
            else:
                _writable(descriptor)
        except BaseException as error:
            self._failed(error)
            raise
        self.head, self._segment = head, ""
        return head

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _current(self) -> int:
        """The open file, if it is still the one at the path and unchanged; otherwise the one at the path."""
        if self._descriptor is not None:
            status = os.fstat(self._descriptor)
            if status.st_nlink == 0:
                self._lost("the file before was removed")
                raise SinkError("the file was removed, and what it held with it")
            if not _leads_to(self.path, status):
                self._lost("rotated")
            elif status.st_size != self._end:
                self._set_aside("was written or cut short by somebody else")
        return self._open() if self._descriptor is None else self._descriptor

    def _lost(self, why: str) -> None:
        self.close()
        self._inode, self._end, self._cut = None, 0, False
        self._segment = why

    def _set_aside(self, what: str) -> None:
        """Renames a file that another process changed, and raises SinkError."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(self.clock.now())}-{secrets.token_hex(3)}")
        self.path.rename(aside)
        self._lost(f"the file before {what}, and is kept as {aside.name}")
        raise SinkError(f"the file {what}; it is kept as {aside.name}")

    def _open(self) -> int:
        if self.head is None:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            status = _locked(descriptor, self.path)
            self._adopt(descriptor, status)
            if status.st_size == 0:  # new, whoever created it
                _sync_directory(self.path)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return descriptor

    def _adopt(self, descriptor: int, status: os.stat_result) -> None:
        """Continues the chain where this file ends, which must be where it was left."""
        inode, size = (status.st_dev, status.st_ino), status.st_size
        if self._cut and inode == self._inode and size > self._end:  # what a write left that failed
            os.ftruncate(descriptor, self._end)
            size = self._end
        if self.head is None:
            found, size = _last(descriptor, size)
            self.head = found or Head(secrets.token_hex(8))
        elif inode == self._inode:
            if size != self._end:
                self._set_aside("was written or cut short by somebody else")
        else:
            size = self._adopt_other(descriptor, size)
        self._inode, self._end, self._cut = inode, size, False

    def _adopt_other(self, descriptor: int, size: int) -> int:
        """Continues in another file than before: an empty one, or a copy that ends where the chain does."""
        try:
            found, size = _last(descriptor, size)
        except SinkError:
            found, size = None, -1
        if size < 0 or (found is not None and found != self.head):
            self._set_aside("isn't this chain's")
        if self._inode is not None:
            self._segment = f"{self._segment}, then another file" if self._segment else "another file"
        return size

    def _write(self, descriptor: int, data: bytes) -> None:
        self._cut = True
        written = self.write(descriptor, data)
        if written != len(data):
            self.write(descriptor, data[written:])  # fails with what is wrong, such as a full disk
            raise SinkError("the disk took a part of a line only")
        self.sync(descriptor)
        self._end += written
        self._cut = False

    def _failed(self, error: BaseException) -> None:
        """Removes what a failed write may have left. If that fails too, it is repeated before the next write."""
        if self._cut and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
                self._cut = False
        self.close()
        if not self._segment:
            self._segment = f"after a failure: {reason(error)}"


FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
"""What the operating system's errors about a disk without room are called."""


def reason(error: BaseException) -> str:
    """What went wrong, without a path."""
    if isinstance(error, OSError) and error.errno in FULL:
        return FULL[error.errno]
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _writable(descriptor: int) -> None:
    """Raises SinkError if the file's disk takes no more writes, as after an error of its file system."""
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        raise SinkError("the disk has become read-only")


def _leads_to(path: Path, status: os.stat_result) -> bool:
    """Whether the path leads to the file with this status."""
    try:
        return os.path.samestat(status, path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _locked(descriptor: int, path: Path) -> os.stat_result:
    """Takes the lock of the one writer and returns the file's status. Raises SinkError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SinkError("another process writes this file; give each its own") from None
    status = os.fstat(descriptor)
    if not _leads_to(path, status):
        raise SinkError("the file was renamed or removed while it was being opened")
    return status


def _last(descriptor: int, size: int) -> tuple[Head | None, int]:
    """The head that the file ends with, and where; an incomplete last line is removed. Raises SinkError."""
    start = max(0, size - MAX_LINE)
    tail = os.pread(descriptor, MAX_LINE, start)
    whole = tail.rfind(b"\n") + 1
    if whole == 0 and start > 0:
        raise SinkError("the file isn't an audit trail; move it away")
    line = tail[:whole].removesuffix(b"\n").rsplit(b"\n", 1)[-1]
    checked = read(line) if whole else None
    if whole and checked is None:
        raise SinkError("the file's last line isn't one of an audit trail; move the file away")
    if whole == 0 and size > 0 and not tail.startswith(b'{"chain":"'[:size]):
        raise SinkError("the file isn't an audit trail; move it away")
    if whole < len(tail):
        os.ftruncate(descriptor, start + whole)
    return (checked.head if checked else None), start + whole


def _sync_directory(path: Path) -> None:
    """Makes a new file's name durable."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
