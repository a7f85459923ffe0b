"""The file from which a worker reads its made-up credentials.

Only its owner may read it, and it is removed at the end. A file left behind by a killed agent-proxy is reused; a
running agent-proxy holds a lock on its file. A file that agent-proxy didn't write is left alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import ConfigError
from livekit_auth.agent_proxy._local_key import KEY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_BYTES = 4096
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # open a FIFO without waiting, then refuse it


@contextmanager
def written(path: Path, credentials: Mapping[str, str]) -> Iterator[None]:
    """Writes the credentials as lines NAME=VALUE, and removes the file when the block ends. Raises ConfigError."""
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}; it must be a separate file, not a link") from None
    try:
        _take(descriptor, path, credentials)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), os.fstat(descriptor)):  # otherwise someone replaced it
                    path.unlink()
    finally:
        os.close(descriptor)  # releases the lock


def _take(descriptor: int, path: Path, credentials: Mapping[str, str]) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"can't write {path}: it isn't a regular file")
    if found.st_uid != os.geteuid() or found.st_nlink != 1 or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"can't write {path}: it exists, and others own it, link to it or may access it; remove it")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"can't write {path}: another agent-proxy is using it") from None
    if not _is_ours(os.read(descriptor, MAX_BYTES + 1), credentials):
        raise ConfigError(
            f"can't write {path}: it exists and agent-proxy didn't write it; remove it or choose another file"
        )
    if not path.exists() or not os.path.samestat(path.lstat(), os.fstat(descriptor)):
        raise ConfigError(f"can't write {path}: it was replaced just now, perhaps by another agent-proxy")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, "".join(f"{name}={value}\n" for name, value in credentials.items()).encode(), 0)


def _is_ours(content: bytes, credentials: Mapping[str, str]) -> bool:
    """Whether a file is empty or was written by an earlier agent-proxy: the same names and a made-up key."""
    lines = dict(line.partition("=")[::2] for line in content.decode("latin-1").splitlines())
    return not content or (list(lines) == list(credentials) and lines["LIVEKIT_API_KEY"].startswith(KEY_PREFIX))
