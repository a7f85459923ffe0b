"""One port for all workers, and for nobody else."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.supervisor.port import hold

pytestmark = pytest.mark.slow


def listener(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    one.listen()
    return one


def test_port_0_becomes_one_port_that_every_worker_can_have() -> None:
    held = hold("127.0.0.1:0")
    port = int(held.address.rpartition(":")[2])
    assert port
    with listener(port), listener(port):
        held.close()


def test_port_holder_gets_no_connection() -> None:
    held = hold("127.0.0.1:0")
    port = int(held.address.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    with listener(port) as worker:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port), 1):
                worker.settimeout(1)
                worker.accept()[0].close()
    held.close()


@pytest.mark.parametrize("reuse", [True, False])
def test_a_port_on_which_somebody_listens_is_refused_although_it_could_be_shared(reuse: bool) -> None:  # noqa: FBT001
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"^listen: can't listen on {address}: Address already in use"):
            hold(address, patience=0.1)


def test_a_port_that_another_supervisor_holds_is_refused_too() -> None:
    held = hold("127.0.0.1:0")
    with pytest.raises(ConfigError, match="already in use"):
        hold(held.address, patience=0.1)
    held.close()
    hold(held.address).close()


def test_stopping_workers_are_waited_for() -> None:
    other = listener(0)
    leaving = threading.Timer(0.3, other.close)
    leaving.start()
    began = time.monotonic()
    hold(f"127.0.0.1:{other.getsockname()[1]}", patience=5).close()
    assert time.monotonic() - began >= 0.25
    leaving.join()


def test_a_name_with_several_addresses_has_the_same_port_on_each() -> None:
    held = hold("localhost:0")
    assert len({one.getsockname()[1] for one in held.sockets}) == 1
    assert held.address == f"localhost:{held.sockets[0].getsockname()[1]}"
    held.close()


@pytest.mark.parametrize("address", ["nowhere.invalid:7443", "192.0.2.1:7443"])
def test_an_address_that_isnt_this_machines_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"^listen: can't listen on {address}: "):
        hold(address, patience=0.1)
