"""One port for all workers: the supervisor binds it, and never listens on it.

Sockets with SO_REUSEPORT share a port, each with its own queue; a socket that is bound and doesn't listen gets no
connections. It holds the port while workers come and go; with port 0 it gives all of them the same one. SO_REUSEPORT
would also let a second server in silently, so the port is first tried without it.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass

from livekit_auth_server.files.errors import ConfigError

PATIENCE = 3.0  # seconds for the workers of a supervisor that was killed to go


@dataclass(frozen=True, slots=True)
class HeldPort:
    """The address for the workers, and the sockets that hold its port."""

    address: str
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """Releases the port."""
        for one in self.sockets:
            one.close()


def hold(address: str, patience: float = PATIENCE) -> HeldPort:
    """Holds the port of HOST:PORT. Raises ConfigError when it isn't available."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError("listen", f"can't listen on {address}: {error.strerror}") from None
    number, sockets, problem = int(port), [], ""
    for family, where in dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found):
        try:
            if number:
                _try(family, where, number, time.monotonic() + patience)
            sockets.append(_bound(family, where, number, socket.SO_REUSEPORT))
            number = number or sockets[0].getsockname()[1]
        except OSError as error:
            problem = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                break
            continue  # an address that this machine doesn't have; gRPC leaves such out as well
    else:
        if sockets:
            return HeldPort(f"{host}:{number}", tuple(sockets))
    HeldPort(address, tuple(sockets)).close()
    raise ConfigError("listen", f"can't listen on {address}: {problem}")


def _try(family: int, where: str, port: int, deadline: float) -> None:
    """Waits until nobody listens there. Raises OSError at the deadline."""
    while True:
        try:
            _bound(family, where, port, socket.SO_REUSEADDR).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _bound(family: int, where: str, port: int, option: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind((where, port))
    except BaseException:
        one.close()
        raise
    return one
