"""A name with several addresses, such as a headless Kubernetes service: each server gets calls."""

import grpc
import grpc.aio

from livekit_auth._connection.certificates import Certificates
from livekit_auth._connection.channel import credentials, options
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub, add_AuthServiceServicer_to_server
from support.fake_auth_server import FakeAuthService
from support.pki import SERVER


async def test_calls_are_spread_over_all_addresses_of_a_name(authority, files):
    """Uses the client's channel options; the addresses are given directly instead of by DNS."""
    leaf = authority.issue(dns=["localhost"], usages=[SERVER])
    server_credentials = grpc.ssl_server_credentials(
        [(leaf.key_pem, leaf.cert_pem)], authority.leaf_pem, require_client_auth=True
    )
    services, servers, port = [FakeAuthService(), FakeAuthService()], [], 0
    for host, service in zip(("127.0.0.1", "127.0.0.2"), services, strict=True):
        server = grpc.aio.server()
        add_AuthServiceServicer_to_server(service, server)
        port = server.add_secure_port(f"{host}:{port}", server_credentials)
        await server.start()
        servers.append(server)
    own = credentials(Certificates(*(files[name].read_bytes() for name in ("ca", "cert", "key"))))
    channel_options = [*options(), ("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"ipv4:127.0.0.1:{port},127.0.0.2:{port}", own, channel_options) as channel:
        for _ in range(100):  # the second connection may take longer than a few calls
            await AuthServiceStub(channel).GetCaller(pb.GetCallerRequest(), wait_for_ready=True, timeout=10)
    for server in servers:
        await server.stop(0)
    assert min(len(service.peers) for service in services) >= 3
