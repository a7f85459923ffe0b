"""Reads files: at most so many bytes, never waiting for a pipe, and secrets only from files that others can't read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from livekit_auth_server.files.errors import ConfigError

_MAX_BYTES = 32 * 1024 * 1024
_NOT_PLAIN = "isn't a plain file"
_DESCRIPTORS = Path("/dev/fd")


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises ConfigError."""
    return _read(path, private=False)


def read_private(path: Path) -> bytes:
    """The bytes of a file that holds a secret. Raises ConfigError when others than owner and group can read it."""
    return _read(path, private=True)


def files_in(folder: Path) -> list[Path]:
    """What a mounted folder holds, by name in sorted order; names that start with a dot are the mount's own.

    Raises ConfigError.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(folder, "there is no such directory") from None
    except (OSError, ValueError) as error:
        raise ConfigError(folder, f"can't be read: {getattr(error, 'strerror', error)}") from None


def _read(path: Path, *, private: bool) -> bytes:
    try:
        descriptor = _opened(path)
        try:
            # Of the open file, so that what was checked is what is read; of a symbolic link that is its target.
            _check(path, os.fstat(descriptor).st_mode, private=private)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        message = _NOT_PLAIN if error.errno == errno.ENXIO else f"can't be read: {error.strerror}"  # ENXIO: a socket
        raise ConfigError(path, message) from None
    except ValueError:
        raise ConfigError(path, "isn't a path: it holds a NUL character") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(path, f"is over {_MAX_BYTES} bytes")
    return content


def _opened(path: Path) -> int:
    """A descriptor, without waiting: a path can become a pipe that nobody writes to, and the wait couldn't be ended."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags if _from_shell(path) else flags | os.O_NONBLOCK)


def _check(path: Path, mode: int, *, private: bool) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode) and not _from_shell(path):
        raise ConfigError(path, _NOT_PLAIN)
    if private and mode & 0o007:
        raise ConfigError(path, f"can be read by others; run: chmod o= {path}")
    if mode & 0o002:
        raise ConfigError(path, f"can be changed by others; run: chmod o-w {path}")


def _from_shell(path: Path) -> bool:
    """Whether the path is a descriptor passed to the command, as a shell does for `<(command)`."""
    return path.parent == _DESCRIPTORS
