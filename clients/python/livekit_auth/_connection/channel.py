"""Opens gRPC channels to the server, for both clients."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import grpc

from livekit_auth._process import grpc_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth._connection.certificates import Certificates

_ChannelT = TypeVar("_ChannelT")

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""Responses are at most 3 MiB (auth_service.proto); the rest leaves room for additions."""


def credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """TLS credentials that present the client certificate and trust only the given CA."""
    return grpc.ssl_channel_credentials(
        root_certificates=certificates.ca, private_key=certificates.key, certificate_chain=certificates.cert
    )


@cache
def options() -> tuple[tuple[str, str | int], ...]:
    """The channel's options, by gRPC's names."""
    return (
        ("grpc.primary_user_agent", f"livekit-auth-python/{version('livekit-auth')}"),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        # A name with several addresses is several servers: spread the calls instead of sending all to the first.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        # The client retries by itself: it waits as long as the server asks, and explains a missing connection.
        ("grpc.enable_retries", 0),
        # By default gRPC waits 1 s before it reconnects and fails calls meanwhile: too long for a 5 s deadline.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A name whose addresses changed is resolved again after 1 s instead of 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # Detects a peer that vanished without closing; gRPC also bounds unacknowledged writes by this.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    )


def open_channel(make: Callable[..., _ChannelT], address: str, certificates: Certificates) -> _ChannelT:
    """Makes a channel with grpc.secure_channel or grpc.aio.secure_channel. Doesn't connect yet.

    Raises RuntimeError in a forked child where gRPC calls would never end.
    """
    grpc_after_fork.check(asyncio=make is not grpc.secure_channel)
    channel = make(address, credentials(certificates), options=options())
    grpc_after_fork.opened(channel)
    return channel
