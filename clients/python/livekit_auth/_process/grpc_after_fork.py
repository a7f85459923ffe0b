"""Whether gRPC works in this process: its core needs threads that a fork may have left in the parent."""

from __future__ import annotations

import os
import weakref
from typing import Any

import grpc

from livekit_auth._process import fork

_OFF = frozenset({"0", "f", "false", "n", "no"})
"""What gRPC's core reads as false (absl::SimpleAtob)."""


def check(*, asyncio: bool = False) -> None:
    """Raises RuntimeError where a call would never end."""
    problem = _state.problem or (_state.asyncio_problem if asyncio else "")
    if problem:
        raise RuntimeError(
            f"gRPC can't be used in this forked process: {problem}. Fork before the first call, or make and close "
            "the client in the worker process only"
        )


def opened(channel: object = None) -> None:
    """Records that this process uses gRPC, and the channel that was opened."""
    _state.used = True
    if channel is not None:
        _state.channels.add(channel)


class _State:
    """What was opened in this process, and what a fork has broken here."""

    def __init__(self) -> None:
        self.channels: weakref.WeakSet[Any] = weakref.WeakSet()
        self.used = False
        self.problem = self.asyncio_problem = ""
        fork.register(self)

    def forked(self) -> None:
        """Called in a forked child: records what doesn't work here."""
        if any(not isinstance(channel, grpc.Channel) for channel in self.channels):
            self.asyncio_problem = "a client for asyncio was open in the parent process when it forked"
        if self.used and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() in _OFF:
            self.problem = "its parent had used gRPC with GRPC_ENABLE_FORK_SUPPORT off when it forked"


_state = _State()
