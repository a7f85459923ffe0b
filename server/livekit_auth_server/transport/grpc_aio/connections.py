"""Connections: whose they are, how many each caller has, and the end of those that are too many or never called.

C-core knows no caller when it accepts a connection, and lets nobody close one. So a caller is known from its first call
on, and connections are closed at their sockets: the process's own descriptors tell which are open, and `shutdown` on a
duplicate of one ends the connection without taking the descriptor from C-core, which sees that its peer is gone.

Guarantees: a caller has at most a quarter of the connections, and callers that the policy doesn't list have that
together; peers without an acceptable identity together have a small part; a connection without a call is closed after
`first_call` seconds, sooner when there are many; no socket of another kind is ever touched.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import structlog

from livekit_auth_server.core.refusal import Overload, overloaded
from livekit_auth_server.transport.grpc_aio.gate import PART_OF_ONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART_OF_REFUSED = 64  # peers without an identity have this part of all connections
LOOK = 1.0  # seconds between two looks at the sockets
_LEAST = 8  # connections of one caller, however few there are in all
_LEAST_AGE = 1.0  # seconds that a connection has for its first call however many there are
_ANSWERED = 0.2  # seconds in which a refusal reaches the peer before its connection is closed
_REPORT = 60.0  # seconds between two log lines about connections without a call
_REFUSED = "(no identity)"
EVENTS = ACCEPTED, CALLED, WITHOUT_CALL = "accepted", "called", "ended_without_call"
_OPEN_FILES = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
_log = structlog.get_logger("livekit_auth_server")

Peer = tuple[str, int]
"""An address without its brackets, and a port."""


def peer_of(text: str) -> Peer | None:
    """A peer as gRPC names it: "ipv4:192.0.2.1:4711", "ipv6:%5B2001:db8::1%5D:4711"."""
    kind, _, address = unquote(text).partition(":")
    host, _, port = address.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """The address in its one form; one of IPv4 that comes through a socket of IPv6 is one of IPv4."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@dataclass(slots=True)
class _Socket:
    """An open connection: its descriptor and inode, which nothing else has while it is open, and since when."""

    descriptor: int
    inode: int
    peer: Peer
    since: float


class Connections:
    """Keeps account of connections. Call it from the event loop only."""

    def __init__(
        self,
        most: int,
        first_call: float,
        accepted: Callable[[], int] = lambda: 0,
        tell: Callable[[str, int], None] = lambda _event, _count: None,
    ) -> None:
        """`accepted` is how many connections there were so far; `tell` is told what became of how many."""
        self._each = max(_LEAST, most // PART_OF_ONE)
        self._refused_most = max(_LEAST, most // PART_OF_REFUSED)
        self._silent_most = max(_LEAST, most // PART_OF_ONE)
        self._first_call = first_call
        self._owners: dict[str, str] = {}  # by gRPC's name of the peer
        self._counts: dict[str, int] = {}
        self._ending: dict[Peer, float] = {}
        self._sockets: dict[tuple[int, int], _Socket | None] = {}
        self._port = 0
        self._looked = 0.0
        self._accepted, self._tell = accepted, tell
        self._told = dict.fromkeys(EVENTS, 0)
        self._first_calls = self._reported = 0
        self._report_at = 0.0

    def called(self, peer: str, owner: str) -> None:
        """A call of this owner came over this connection. Raises OVERLOADED when it has too many."""
        if self._owners.get(peer) == owner:
            return
        if not self._takes(peer, owner, self._each):
            message = f"you have {self._each} connections, the most that one caller may have; share them"
            raise overloaded(Overload.CALLER_CONNECTIONS, message)

    def refused(self, peer: str) -> None:
        """A call of nobody that is accepted came over this connection."""
        if self._owners.get(peer) != _REFUSED:
            self._takes(peer, _REFUSED, self._refused_most)

    async def watch(self, port: int) -> None:
        """Looks after the connections to this port until it is cancelled."""
        self._port = port
        while True:
            await asyncio.sleep(LOOK)
            try:
                self._look()
            except OSError as error:
                _log.warning("open connections can't be listed", error=error.strerror)

    def _takes(self, peer: str, owner: str, most: int) -> bool:
        """Counts a connection for its owner; one too many is closed soon."""
        if (known := peer_of(peer)) is None:
            return True
        if self._forget(peer) is None:
            self._first_calls += 1
        if self._counts.get(owner, 0) >= most and time.monotonic() - self._looked > _ANSWERED:
            with suppress(OSError):
                self._look()  # some may have gone
        if self._counts.get(owner, 0) >= most:
            self._ending.setdefault(known, time.monotonic() + _ANSWERED)
            return False
        self._ending.pop(known, None)
        self._owners[peer] = owner
        self._counts[owner] = self._counts.get(owner, 0) + 1
        return True

    def _forget(self, peer: str) -> str | None:
        """Counts the connection for nobody any more; returns for whom it counted."""
        owner = self._owners.pop(peer, None)
        if owner is not None:
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]
        return owner

    def _look(self) -> None:
        """Forgets connections that are gone, and closes those whose time is over."""
        if not self._port:
            return
        now = self._looked = time.monotonic()
        self._sockets = dict(self._listed(now))
        by_peer = {entry.peer: entry for entry in self._sockets.values() if entry is not None}
        called = {}
        for name in self._owners:
            if (peer := peer_of(name)) is not None:
                called[peer] = name
        for peer in called.keys() - by_peer.keys():
            self._forget(called[peer])
        self._ending = {peer: due for peer, due in self._ending.items() if peer in by_peer}
        due = [by_peer[peer] for peer, when in self._ending.items() if when <= now]
        silent = [entry for peer, entry in by_peer.items() if peer not in called and peer not in self._ending]
        for entry in (*due, *self._overdue(silent, now)):
            _shut(entry)
            self._ending.pop(entry.peer, None)  # the next peer from this address is another one
        self._count(len(silent), now)

    def _count(self, silent: int, now: float) -> None:
        """Tells what became of connections since the last look, and logs those without a call, once a minute."""
        accepted = self._accepted()
        totals = {
            ACCEPTED: accepted,
            CALLED: self._first_calls,
            # Its handshake failed, or it said nothing: C-core tells no more of it.
            WITHOUT_CALL: max(self._told[WITHOUT_CALL], accepted - self._first_calls - silent),
        }
        for event, total in totals.items():
            if more := total - self._told[event]:
                self._tell(event, more)
        self._told = totals
        if (more := totals[WITHOUT_CALL] - self._reported) and now >= self._report_at:
            self._report_at, self._reported = now + _REPORT, totals[WITHOUT_CALL]
            _log.info("connections ended without a call: their handshake failed, or nothing came", count=more)

    def _overdue(self, silent: list[_Socket], now: float) -> Iterator[_Socket]:
        """Connections without a call that have had their time; the oldest of those over the bound, too."""
        silent.sort(key=lambda entry: entry.since)
        over = len(silent) - self._silent_most
        for index, entry in enumerate(silent):
            age = now - entry.since
            if age >= self._first_call or (index < over and age >= _LEAST_AGE):
                yield entry

    def _listed(self, now: float) -> Iterator[tuple[tuple[int, int], _Socket | None]]:
        """Every open socket by descriptor and inode; None for one that is no connection to the port."""
        with os.scandir(_OPEN_FILES) as entries:
            descriptors = [int(entry.name) for entry in entries]
        for descriptor in descriptors:
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                key = (descriptor, status.st_ino)
                known = key in self._sockets
                yield key, self._sockets[key] if known else self._examined(descriptor, status.st_ino, now)
            except OSError:  # closed meanwhile
                continue

    def _examined(self, descriptor: int, inode: int, now: float) -> _Socket | None:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if os.fstat(copy.fileno()).st_ino != inode:
                return None
            if copy.family not in {socket.AF_INET, socket.AF_INET6} or copy.getsockname()[1] != self._port:
                return None
            try:
                host, port = copy.getpeername()[:2]
            except OSError:  # the listening socket
                return None
        return _Socket(descriptor, inode, (_plain(host), port), now)


def _shut(entry: _Socket) -> None:
    """Ends the connection, if the descriptor is still the same socket's."""
    with suppress(OSError), socket.socket(fileno=os.dup(entry.descriptor)) as copy:
        if os.fstat(copy.fileno()).st_ino == entry.inode:
            copy.shutdown(socket.SHUT_RDWR)
