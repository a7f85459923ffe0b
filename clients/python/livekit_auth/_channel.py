"""How a channel to the server is set up, for both clients."""

from __future__ import annotations

import os
import weakref
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from livekit_auth import _fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth._certificates import Certificates

_ChannelT = TypeVar("_ChannelT")

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""Responses go to 3 MiB (auth_service.proto); the rest is room for later additions."""


def credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """TLS credentials that show the client certificate and trust only the given CA."""
    return grpc.ssl_channel_credentials(
        root_certificates=certificates.ca, private_key=certificates.key, certificate_chain=certificates.cert
    )


@cache
def options() -> tuple[tuple[str, str | int], ...]:
    """The channel's options, by gRPC's names."""
    return (
        ("grpc.primary_user_agent", f"livekit-auth-python/{version('livekit-auth')}"),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        # A name with several addresses is several servers: a call to each in turn, instead of all to the first.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        # gRPC waits 1 s before it connects again, and fails calls at once meanwhile: too long for a 5 s deadline.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A name that has moved to other addresses is looked up again after 1 s, not after 30.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # Finds a connection whose other end vanished without a word; gRPC also bounds unacknowledged writes by it.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    )


def secure(make: Callable[..., _ChannelT], address: str, certificates: Certificates) -> _ChannelT:
    """A channel to the server, made by grpc.secure_channel or its twin for asyncio. Connects to nothing yet.

    Raises RuntimeError in a forked child where gRPC's calls would never end.
    """
    process.check(asyncio=make is not grpc.secure_channel)
    channel = make(address, credentials(certificates), options=options())
    process.opened(channel)
    return channel


class _Process:
    """Whether gRPC works in this process: a fork may have left the threads that its core needs in the parent."""

    def __init__(self) -> None:
        self._channels: weakref.WeakSet[Any] = weakref.WeakSet()
        self._used = False
        self._problem = self._asyncio_problem = ""
        _fork.register(self)

    def forked(self) -> None:
        """In a forked child: notes what doesn't work here."""
        if any(not isinstance(channel, grpc.Channel) for channel in self._channels):
            self._asyncio_problem = "a client for asyncio was open in the parent process when it forked"
        if self._used and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() in _OFF:
            self._problem = "its parent had used gRPC with GRPC_ENABLE_FORK_SUPPORT off when it forked"

    def check(self, *, asyncio: bool = False) -> None:
        """Raises RuntimeError where a call would never end."""
        problem = self._problem or (self._asyncio_problem if asyncio else "")
        if problem:
            raise RuntimeError(
                f"gRPC can't be used in this forked process: {problem}. Fork before the first call, or make and close "
                "the client in the worker process only"
            )

    def opened(self, channel: object = None) -> None:
        """Notes that gRPC is used here, and a channel that it has made."""
        self._used = True
        if channel is not None:
            self._channels.add(channel)


_OFF = frozenset({"0", "f", "false", "n", "no"})
"""What gRPC's core reads as false (absl::SimpleAtob)."""

process = _Process()
