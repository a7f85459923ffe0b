"""The options of the gRPC channel."""

from livekit_auth._connection.channel import options


def test_only_the_client_retries():
    assert dict(options())["grpc.enable_retries"] == 0
