"""What a forked child must not share with its parent: connections, locks, threads.

An object that holds such things registers itself here; in a child, `forked` is called on each before any other code of
the child runs. A TLS connection used by two processes would break both, so what was inherited is set aside and kept:
closing it would write to the parent's connection.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that a forked child inherits."""

    def forked(self) -> None:
        """Called in the child: replaces locks, sets aside connections, and starts nothing yet. Must not raise."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()
_set_aside: list[object] = []


def register(inherited: Forkable) -> None:
    """Has `forked` called in every child that is forked from now on, as long as the object lives."""
    _registered.add(inherited)


def set_aside(connection: object) -> None:
    """Keeps an inherited connection for the life of this process, unused and open."""
    _set_aside.append(connection)


def _in_child() -> None:
    for inherited in list(_registered):
        inherited.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which doesn't fork
    os.register_at_fork(after_in_child=_in_child)
