"""A throwaway deployment for trying things out: PKI, keys, policy and settings. Never for production."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from livekit_auth_server.adapters.yaml_file import ConfigError
from livekit_auth_server.settings import client_url, listen_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRUST_DOMAIN = "dev.example.org"
CLIENTS = ("web", "agents", "webhooks")
LIFETIME = dt.timedelta(days=30)

POLICY = f"""\
# Who may have which token. Default deny; one entry must permit a whole request. docs/policy.md explains every field.
version: 1
roles:
  guest: {{video: {{room_join: true, can_publish: true, can_subscribe: true, can_publish_data: false}}}}
  host: {{video: {{room_join: true, can_publish: true, can_subscribe: true, can_publish_data: true}}}}
  agent-worker: {{video: {{agent: true}}}}
  # What jobs call LiveKit with, in their room: participants, data, dispatch. delete_room and create_room need
  # video.room_create and the power room_create, SIP calls need sip.call and the power sip. LiveKit bounds neither to a
  # room, so they take an entry with rooms: any. docs/agents.md lists the calls.
  agent-api: {{video: {{room_admin: true, can_publish: false, can_subscribe: false, can_publish_data: false}}}}
  # For LiveKit Cloud: AgentServer(inference_role="agent-inference", observability_role="agent-observability").
  agent-inference: {{inference: {{perform: true}}}}
  agent-observability: {{observability: {{write: true}}}}
callers:
  - id: spiffe://{TRUST_DOMAIN}/web
    allow:
      - projects: [default]
        roles: [guest, host]
        rooms: [{{prefix: consult-}}]
        identities: [{{prefix: user-}}]
        ttl: {{default: 10m, max: 1h}}
  - id: spiffe://{TRUST_DOMAIN}/agents
    allow:
      - projects: [default]
        roles: [agent-worker]
        powers: [agent]
        rooms: any
        ttl: {{default: 5m, max: 10m}}
      - projects: [default]
        roles: [agent-api]
        powers: [room_admin]
        rooms: [{{prefix: consult-}}]
        ttl: {{default: 1m, max: 5m}}
      - projects: [default]
        roles: [agent-inference, agent-observability]
        powers: [inference, observability]
        identities: [{{exact: agent}}]
        ttl: {{default: 10m, max: 10m}}
  - id: spiffe://{TRUST_DOMAIN}/webhooks
    verify: {{webhooks: [default]}}
"""

POLICY_TESTS = f"""\
# What the policy is expected to decide: livekit-auth-server policy test policy.yaml
version: 1
expect:
  - name: web issues a guest
    caller: spiffe://{TRUST_DOMAIN}/web
    request: {{role: guest, room: consult-1, identity: user-1}}
    outcome: permit
  - name: web stays in its rooms
    caller: spiffe://{TRUST_DOMAIN}/web
    request: {{role: guest, room: board-1, identity: user-1}}
    outcome: deny
    reason: ROOM_NOT_PERMITTED
  - name: web gets no worker's token
    caller: spiffe://{TRUST_DOMAIN}/web
    request: {{role: agent-worker}}
    outcome: deny
    reason: ROLE_NOT_PERMITTED
  - name: a worker registers
    caller: spiffe://{TRUST_DOMAIN}/agents
    request: {{role: agent-worker}}
    outcome: permit
  - name: a job calls LiveKit in its room
    caller: spiffe://{TRUST_DOMAIN}/agents
    request: {{role: agent-api, room: consult-1}}
    outcome: permit
  - name: a job uses LiveKit Inference
    caller: spiffe://{TRUST_DOMAIN}/agents
    request: {{role: agent-inference, identity: agent}}
    outcome: permit
  - name: a job's session is recorded
    caller: spiffe://{TRUST_DOMAIN}/agents
    request: {{role: agent-observability}}
    outcome: permit
  - name: web uses no inference
    caller: spiffe://{TRUST_DOMAIN}/web
    request: {{role: agent-inference, identity: agent}}
    outcome: deny
    reason: ROLE_NOT_PERMITTED
"""

DENY_LIST = """\
# Workloads and certificates that are refused, from the moment that they stand here: docs/operations.md, "Revoke".
version: 1
deny: []
"""

SETTINGS = """\
# Paths are taken from this file's folder. docs/configuration.md lists every setting.
listen: "{address}"
tls: {{certificate: server.pem, key: server.key}}
identity:
  trust_domains:
    {domain}: ca.pem
  deny_list: deny.yaml
policy: policy.yaml
projects:
  default:
    url: "{url}"
    keys: {{file: keys.yaml}}
audit: {{path: audit}}
# metrics: 127.0.0.1:9464  # /livez, /readyz, /metrics
reflection: true
"""


@dataclass(frozen=True, slots=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write(directory: Path, address: str, livekit_url: str) -> None:
    """Writes a deployment into a directory that is new or empty.

    Raises FileExistsError when it isn't, and ConfigError for an address or url that the server wouldn't take.
    """
    _check("address", listen_address, address)
    _check("url", client_url, livekit_url)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} isn't empty; name a new folder, so that nothing is overwritten")
    now = dt.datetime.now(dt.UTC)
    authority = _authority(now)
    _write(directory / "ca.pem", authority.certificate.public_bytes(Encoding.PEM))
    host = address.rsplit(":", 1)[0].strip("[]")
    _write_leaf(directory, "server", _leaf(authority, now, _host_names(host), ExtendedKeyUsageOID.SERVER_AUTH))
    for client in CLIENTS:
        name = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{client}")
        _write_leaf(directory, client, _leaf(authority, now, [name], ExtendedKeyUsageOID.CLIENT_AUTH))
    key_id, secret = f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32)
    _write_private(directory / "keys.yaml", f"{key_id}: {secret}\n".encode())
    _write(directory / "policy.yaml", POLICY.encode())
    _write(directory / "policy.test.yaml", POLICY_TESTS.encode())
    _write(directory / "deny.yaml", DENY_LIST.encode())
    settings = SETTINGS.format(address=address, domain=TRUST_DOMAIN, url=livekit_url)
    _write(directory / "server.yaml", settings.encode())


def _check(what: str, check: Callable[[object], str], value: str) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ConfigError(what, str(error)) from None


def _host_names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        if host != "localhost":
            names.append(x509.DNSName(host))
    return names


def _authority(now: dt.datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "livekit-auth throwaway CA")])
    builder = _builder(now, name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _Authority(key, builder.sign(key, hashes.SHA256()))


def _leaf(
    authority: _Authority, now: dt.datetime, names: list[x509.GeneralName], usage: x509.ObjectIdentifier
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = _builder(now, x509.Name([]), authority.certificate.subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(issuer, critical=False)
    return key, builder.sign(authority.key, hashes.SHA256())


def _builder(
    now: dt.datetime, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _write_leaf(directory: Path, stem: str, leaf: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]) -> None:
    key, certificate = leaf
    _write(directory / f"{stem}.pem", certificate.public_bytes(Encoding.PEM))
    _write_private(directory / f"{stem}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write_private(path: Path, content: bytes) -> None:
    """Creates the file for the owner alone before a byte of it is written."""
    _write(path, content, mode=0o600)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Creates the file with this mode at the most, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
