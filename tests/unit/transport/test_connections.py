"""Whose connections are, how many of each, and which are closed; the sockets are made up."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.transport.grpc_aio import connections as module
from livekit_auth_server.transport.grpc_aio.connections import Connections, peer_of


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("ipv6:%5B2001:db8::1%5D:4711", ("2001:db8::1", 4711)),
        ("ipv6:[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", ("fe80::1", 4711)),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", ("192.0.2.1", 4711)),
        ("unix:/run/x", None),
        ("ipv4:192.0.2.1", None),
        ("", None),
    ],
)
def test_a_peer_is_known_by_grpcs_name_of_it(text: str, peer: tuple[str, int] | None) -> None:
    assert peer_of(text) == peer


class Sockets(Connections):
    """Connections over sockets that a test opens by hand, by the clock of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 40, first_call: float = 30) -> None:
        self.events: dict[str, int] = {}
        self.made = 0
        super().__init__(most, first_call, lambda: self.made, self._told_of)
        self.now = 1000.0
        self.open: dict[int, float] = {}
        self.shut: list[int] = []
        self._port = 7443
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(module, "_shut", lambda entry: self.shut.append(entry.peer[1]))

    def _told_of(self, event: str, count: int) -> None:
        self.events[event] = self.events.get(event, 0) + count

    def _listed(self, now: float):
        for port in self.open:
            known = self._sockets.get((port, port))
            yield (port, port), known or module._Socket(port, port, ("192.0.2.1", port), now)

    def connect(self, *ports: int) -> None:
        for port in ports:
            self.made += 1
            self.open[port] = self.now

    def call(self, port: int, owner: str) -> bool:
        """Whether the call is answered."""
        try:
            self.called(f"ipv4:192.0.2.1:{port}", owner)
        except Refusal as refusal:
            return refusal.reason is not Reason.OVERLOADED
        return True

    def look(self, after: float = 1.0) -> list[int]:
        """The ports whose connections are closed after so many seconds."""
        self.now += after
        self.shut.clear()
        self._look()
        return sorted(self.shut)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    return Sockets(monkeypatch)


def test_a_caller_has_a_quarter_and_the_one_too_many_is_refused_and_closed(sockets: Sockets) -> None:
    sockets.connect(*range(12))
    assert [sockets.call(port, "web") for port in range(12)] == [True] * 10 + [False] * 2
    assert sockets.call(3, "web"), "those within go on"
    assert sockets.call(11, "hooks"), "others have a quarter of their own"
    assert sockets.look() == [10], "a call over the other was answered since"


def test_an_address_that_was_closed_is_free_for_another(sockets: Sockets) -> None:
    sockets.connect(*range(11))
    assert [sockets.call(port, "web") for port in range(11)][10] is False
    assert sockets.look() == [10]
    assert sockets.look() == [], "the next connection from there isn't closed for the one before"


def test_a_connection_that_is_gone_makes_room(sockets: Sockets) -> None:
    sockets.connect(*range(10))
    assert all(sockets.call(port, "web") for port in range(10))
    sockets.look()
    del sockets.open[4]
    sockets.connect(20)
    sockets.now += 0.5
    assert sockets.call(20, "web"), "looked at once, since it mattered"


def test_peers_without_an_identity_share_few(sockets: Sockets) -> None:
    sockets.connect(*range(20))
    for port in range(12):
        sockets.refused(f"ipv4:192.0.2.1:{port}")
    assert sockets.look() == [8, 9, 10, 11]


def test_a_connection_without_a_call_has_its_time(sockets: Sockets) -> None:
    sockets.connect(1, 2)
    assert sockets.look() == []
    sockets.call(2, "web")
    assert sockets.look(29) == []
    assert sockets.look(1) == [1]


def test_many_connections_without_a_call_have_a_second_the_oldest_first(sockets: Sockets) -> None:
    sockets.connect(*range(12))
    assert sockets.look() == []
    sockets.connect(*range(12, 15))
    assert sockets.look(0.5) == []
    assert sockets.look(0.5) == [0, 1, 2, 3, 4]


def test_what_became_of_connections_is_counted_and_logged_once_a_minute(sockets: Sockets) -> None:
    sockets.connect(1, 2, 3, 4, 5)
    sockets.call(1, "web")
    sockets.call(1, "web")
    for port in (2, 3):
        del sockets.open[port]
    with capture_logs() as logs:
        sockets.look()
        del sockets.open[4]
        sockets.look()
        del sockets.open[1]  # it was called
        sockets.look()
    assert sockets.events == {"accepted": 5, "called": 1, "ended_without_call": 3}
    assert [(entry["log_level"], entry["count"]) for entry in logs] == [("info", 2)]
    with capture_logs() as logs:
        sockets.look(60)
    assert [entry["count"] for entry in logs] == [1]


async def test_a_look_that_fails_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()

    def fail(_self: Connections) -> None:
        looked.set()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module, "LOOK", 0)
    monkeypatch.setattr(Connections, "_look", fail)
    with capture_logs() as logs:
        watching = asyncio.create_task(Connections(10, 30).watch(1))
        for _ in range(2):
            await asyncio.wait_for(looked.wait(), 5)
            looked.clear()
        watching.cancel()
    assert logs[0]["error"] == "Too many open files"
