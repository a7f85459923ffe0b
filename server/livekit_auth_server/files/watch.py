"""Files that change: what they are now, and a hint when they may have become something else.

Truth comes from looking (`fingerprint`), never from a notification: those get lost on network file systems and when a
folder is replaced. A notification only says to look now rather than at the next tick.

Followed are all links on the way, so a swap of Kubernetes' `..data`, or of a link further up, counts as a change.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Fingerprint = tuple[object, ...]
"""Equal as long as the files are the same: where the paths lead, which files those are, and when they were written."""

Places = dict[str, tuple[int, frozenset[str]]]
"""Folders to watch: each folder's inode and the names in it that matter; "*" stands for all."""

_LINKS = 40  # as Linux follows at most
_STEP_MS, _DEBOUNCE_MS = 20, 200
_log = structlog.get_logger("livekit_auth_server")


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """What these files, and all files in these folders, are now. A file that is missing is a state like another."""
    return tuple(_one(path) for path in paths)


def _one(path: Path) -> Fingerprint:
    here = _stat(path)
    children: list[Fingerprint] = []
    with suppress(OSError, ValueError):
        children = [_stat(path / name) for name in sorted(os.listdir(path)) if not name.startswith(".")]  # noqa: PTH208
    return (here, *children)


def _stat(path: Path) -> Fingerprint:
    try:
        real = os.path.realpath(path)
        stat = os.stat(real)  # noqa: PTH116 - cheaper, and looked at often
    except (OSError, ValueError) as error:
        return (str(path), str(error))
    # Mode and change time too: keys that others may read now are refused.
    return (real, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_mode)


def places(paths: Iterable[Path]) -> Places:
    """The folders in which a change can change these files: those of the files and of every link on the way."""
    names: dict[str, set[str]] = {}
    for path in paths:
        with suppress(OSError, ValueError):
            _follow(path.absolute(), names, _LINKS)
    found: Places = {}
    for folder, inside in names.items():
        with suppress(OSError):
            found[folder] = (os.stat(folder).st_ino, frozenset(inside))  # noqa: PTH116
    return found


def _follow(path: Path, names: dict[str, set[str]], links: int) -> None:
    current = Path(path.anchor)
    for index, part in enumerate(path.parts[1:], start=2):
        if part == "..":
            current = current.parent
            continue
        if (current / part).is_symlink() and links:
            names.setdefault(str(current), set()).add(part)
            target = current / os.readlink(current / part)  # noqa: PTH115 - Path would drop what follows a ".."
            _follow(target.joinpath(*path.parts[index:]), names, links - 1)
            return
        current /= part
    names.setdefault(str(current.parent), set()).add(current.name)
    if current.is_dir():
        names.setdefault(str(current), set()).add("*")


async def notify(folders: Mapping[str, tuple[int, frozenset[str]]], changed: Callable[[], None]) -> None:
    """Calls `changed` soon after something that matters changes in a folder, until cancelled.

    Returns when the system can't watch (too many watches, a folder that is gone): looking at intervals remains.
    """

    def matters(_change: object, path: str) -> bool:
        folder, name = os.path.split(path)
        names = folders.get(folder, (0, frozenset()))[1]
        return path in folders or name in names or "*" in names

    watching = awatch(*folders, watch_filter=matters, step=_STEP_MS, debounce=_DEBOUNCE_MS, recursive=False)
    try:
        async for _ in watching:
            changed()
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - the library's own errors vary; none may stop the server
        _log.warning("can't watch files; looking at intervals instead", error=type(error).__name__)
