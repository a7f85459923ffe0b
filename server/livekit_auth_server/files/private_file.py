"""Changes a file of secrets in one step: readers find the old file or the new one, also when the editor is killed.

Guarantees: one editor at a time (a lock on the file itself: nobody can hold it who can't read the file, and it leaves
nothing behind); the new file has the owner, the group, the mode and the access list of the old one and is on the disk
before it takes its place; a file that somebody else changed meanwhile isn't overwritten. Links are followed to the file
that they lead to. Refused are files that Kubernetes mounts, those with a second name, and anything but a plain file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 5.0  # seconds to wait for another editor
_LOOK_AGAIN = 0.02  # seconds
_ACCESS_LIST = "system.posix_acl_access"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file as it was read, under the lock. `path` is as the user wrote it, `target` where it leads."""

    path: Path
    target: Path
    content: bytes = field(repr=False)
    seen: os.stat_result

    @property
    def new(self) -> Path:
        """Where the new content is written before it takes the file's place."""
        return self.target.with_name(f".{self.target.name}.new")

    def untouched(self) -> bool:
        """Whether the file is known to hold what it held when it was read."""
        try:
            return read_bytes(self.target) == self.content
        except ConfigError:
            return False

    def replace(self, content: bytes) -> None:
        """Puts new content in the file's place. Raises ConfigError, which says if it is there all the same."""
        if _identity(_look(self.path, self.target)) != _identity(self.seen):
            raise ConfigError(self.path, "was changed by somebody else meanwhile; run the command again")
        new = self.new
        try:
            new.unlink(missing_ok=True)  # of an editor that was killed: the lock is ours
            try:
                self._write(new, content)
                new.replace(self.target)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
        except OSError as error:
            message = (
                f"can't be replaced ({error.strerror}); you need to be its owner and to be able to write its folder"
            )
            raise ConfigError(self.path, message) from None
        try:
            _sync_folder(self.target.parent)
        except OSError as error:
            message = f"was changed, but its folder can't be brought to the disk ({error.strerror}): look at it again"
            raise ConfigError(self.path, message) from None

    def _write(self, new: Path, content: bytes) -> None:
        """Owner before mode: until then nobody else can read a byte."""
        with open(os.open(new, _NEW, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            made = os.fstat(file.fileno())
            if (made.st_uid, made.st_gid) != (self.seen.st_uid, self.seen.st_gid):
                os.fchown(file.fileno(), self.seen.st_uid, self.seen.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(self.seen.st_mode))
            if (access := _access_list(self.target)) is not None:
                os.setxattr(file.fileno(), _ACCESS_LIST, access)
            os.fsync(file.fileno())


@contextlib.contextmanager
def editing(path: Path, patience: float = PATIENCE) -> Iterator[PrivateFile]:
    """Locks the file, waiting `patience` seconds for another editor; reads the file. Raises ConfigError."""
    target = _target(path)
    with _locked(path, target, patience):
        seen = _look(path, target)
        yield PrivateFile(path, target, read_private(target), seen)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that nobody else can read and that wasn't there. Raises ConfigError."""
    try:
        with open(os.open(path, _NEW, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except FileExistsError:
        raise ConfigError(path, "is there already, and nothing is overwritten; name a new file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be written: {error.strerror}") from None


def _target(path: Path) -> Path:
    try:
        target = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(path, "isn't a path: it holds a NUL character") from None
    if any(part.startswith("..") for part in target.parts):
        raise ConfigError(path, "is mounted by Kubernetes; change a copy, then the Secret that it is mounted from")
    return target


def _look(path: Path, target: Path) -> os.stat_result:
    try:
        seen = target.lstat()
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    if not stat.S_ISREG(seen.st_mode):
        raise ConfigError(path, "isn't a plain file")
    if seen.st_nlink > 1:
        raise ConfigError(path, "has a second name (a hard link), which would keep the old keys; remove one of them")
    return seen


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@contextlib.contextmanager
def _locked(path: Path, target: Path, patience: float) -> Iterator[None]:
    deadline = time.monotonic() + patience
    while (descriptor := _lock(path, target)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(path, "another command is changing the file; try again when it is done")
        time.sleep(_LOOK_AGAIN)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, target: Path) -> int | None:
    """A descriptor that holds the lock; None while another editor has it, or has just put a new file in the place."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    held = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(descriptor), target.lstat())
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:  # some network file systems
        raise ConfigError(path, f"can't be locked: {error.strerror}; change a copy elsewhere") from None
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None


def _access_list(path: Path) -> bytes | None:
    """The file's POSIX access list: without it the mode alone would let the whole group in."""
    try:
        return os.getxattr(path, _ACCESS_LIST)
    except OSError:
        return None  # none, or a file system without them


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
