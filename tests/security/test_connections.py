"""What somebody who only reaches the port can hold on to."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from livekit_auth.v1 import auth_service_pb2

if TYPE_CHECKING:
    from support.deployment import Deployment

ASK = auth_service_pb2.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")


def connect(deployment: Deployment) -> socket.socket:
    return socket.create_connection(("127.0.0.1", deployment.port), timeout=10)


def test_a_connection_without_a_handshake_is_closed_in_time(deployment: Deployment) -> None:
    deployment.write("limits: {handshake: 0.5}")
    deployment.start()
    for first in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
        started = time.monotonic()
        with connect(deployment) as silent:
            silent.sendall(first)
            while silent.recv(4096):
                pass
        assert time.monotonic() - started < 2.5, first


def test_silent_connections_keep_a_caller_out_no_longer_than_a_handshake_may_take(deployment: Deployment) -> None:
    deployment.write("limits: {connections: 8, handshake: 1}")
    deployment.start()
    silent = [connect(deployment) for _ in range(40)]
    try:
        caller = deployment.caller("spiffe://example.org/web")
        assert caller.IssueToken(ASK, timeout=20, wait_for_ready=True).token
    finally:
        for connection in silent:
            connection.close()


def test_connections_over_the_bound_are_refused_and_those_within_go_on(deployment: Deployment) -> None:
    deployment.write("limits: {connections: 2, handshake: 60}")
    deployment.start()
    callers = [deployment.caller("spiffe://example.org/web") for _ in range(2)]
    assert all(caller.IssueToken(ASK, timeout=10).token for caller in callers)
    with connect(deployment) as third:
        assert third.recv(1) == b""
    assert all(caller.IssueToken(ASK, timeout=10).token for caller in callers)
