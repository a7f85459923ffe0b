# Generated from livekit_auth/_async/connection.py by tools/unasync.py: edit that file instead.
"""The channel to the server: opened on first use, replaced when the certificates are renewed.

A replaced channel is closed when its last call has ended, so a renewal never breaks a call. Nothing here waits, except
for closing a channel without calls; the lock is held only for lookups. A forked child opens its own channel.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from livekit_auth._connection.certificates import open_source
from livekit_auth._connection.channel import open_channel
from livekit_auth._connection.diagnosis import Diagnosis
from livekit_auth._process import fork
from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth._connection.config import Config
    from livekit_auth._messages.errors import Finding


@dataclass(slots=True)
class _Link:
    """A channel and the number of calls that use it."""

    channel: grpc.Channel
    stub: AuthServiceStub
    calls: int = 0
    retired: bool = False

    @property
    def finished(self) -> bool:
        return self.retired and not self.calls


class Connection:
    """Lends a stub for the duration of a call."""

    def __init__(self, config: Config) -> None:
        """Loads the certificates; raises ConfigError if they can't be used. Connects on the first call."""
        self._address = config.address
        self._source = open_source(config)
        self._diagnosis = Diagnosis(config)
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._closed = False
        fork.register(self)

    def forked(self) -> None:
        """Called in a forked child: sets the parent's channel aside. The next call opens a new one."""
        self._lock = threading.Lock()
        fork.set_aside(self._link)
        self._link = None

    @contextmanager
    def stub(self) -> Iterator[AuthServiceStub]:
        """A stub with the newest certificates, for one call. Raises RuntimeError after `close`."""
        link, replaced = self._borrow()
        try:
            if replaced is not None:
                replaced.channel.close()
            yield link.stub
        finally:
            if self._give_back(link):
                link.channel.close()

    def diagnose(self, began: float) -> Finding | None:
        """Why a call that began then (time.monotonic) has no connection, if already known. Never waits."""
        self._diagnosis.begin(self._source.current)
        return self._diagnosis.finding(began)

    def close(self) -> None:
        """Refuses new calls and closes the channel. If calls are in flight, the last of them closes it."""
        with self._lock:
            self._closed = True
            self._source.close()
            link, self._link = self._link, None
            if link is not None:
                link.retired = True
        if link is not None and link.finished:
            link.channel.close()

    def _borrow(self) -> tuple[_Link, _Link | None]:
        """The link to use, and the replaced link if it can be closed now."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            link, replaced = self._link, None
            renewed = self._source.renewed()
            if link is None or renewed:
                newest = self._open()
                if link is not None:
                    link.retired = True
                    replaced = link if link.finished else None
                link = self._link = newest
            link.calls += 1
            return link, replaced

    def _give_back(self, link: _Link) -> bool:
        """Whether the link must be closed now."""
        with self._lock:
            link.calls -= 1
            return link.finished

    def _open(self) -> _Link:
        channel = open_channel(grpc.secure_channel, self._address, self._source.current)
        return _Link(channel, AuthServiceStub(channel))
