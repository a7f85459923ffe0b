"""What a forked child must not share with its parent: connections, locks, threads.

An object that holds such resources registers itself here. In a child, `forked` is called on each registered object
before any other code runs. An inherited TLS connection is kept open but unused: using it would break both processes,
and closing it would write to the parent's connection.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object that a forked child inherits."""

    def forked(self) -> None:
        """Called in the child: replaces locks and sets connections aside. Must start nothing and must not raise."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()
_set_aside: list[object] = []


def register(inherited: Forkable) -> None:
    """Makes every later forked child call `forked`, as long as the object lives."""
    _registered.add(inherited)


def set_aside(connection: object) -> None:
    """Keeps an inherited connection open and unused for the life of this process."""
    _set_aside.append(connection)


def _in_child() -> None:
    for inherited in list(_registered):
        inherited.forked()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)
