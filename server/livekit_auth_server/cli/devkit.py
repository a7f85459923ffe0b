"""A throwaway deployment for trying things out: PKI, keys, policy and settings. Never for production.

The CA key stays in the folder, so that `add_caller` can issue more certificates. Anyone who can read it can be any
caller.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
from textwrap import indent
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from livekit_auth_server.cli.devkit_pki import Authority, host_names, issue, new_authority
from livekit_auth_server.config.sections import client_url, listen_address
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private
from livekit_auth_server.policy.policy_file import compile_policy, load_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRUST_DOMAIN = "dev.example.org"
CLIENTS = ("web", "agents", "webhooks")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

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
    verify: {{webhooks: [default], tokens: [default]}}
"""

ENTRY = """\
- id: {id}
  allow:
    - projects: [default]
      roles: [guest]
      rooms: [{{prefix: consult-}}]
      identities: [{{prefix: user-}}]
      ttl: {{default: 10m, max: 1h}}
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
log: {{decisions: true}}  # each decision is a log line too, for people
# metrics: 127.0.0.1:9464  # /livez, /readyz, /metrics
reflection: true
"""


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
    authority = new_authority(now)
    _write_leaf(directory, "ca", (authority.key, authority.certificate))
    host = address.rsplit(":", 1)[0].strip("[]")
    _write_leaf(directory, "server", issue(authority, now, host_names(host), ExtendedKeyUsageOID.SERVER_AUTH))
    for client in CLIENTS:
        name = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{client}")
        _write_leaf(directory, client, issue(authority, now, [name], ExtendedKeyUsageOID.CLIENT_AUTH))
    key_id, secret = f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32)
    _write_private(directory / "keys.yaml", f"{key_id}: {secret}\n".encode())
    _write(directory / "policy.yaml", POLICY.encode())
    _write(directory / "policy.test.yaml", POLICY_TESTS.encode())
    _write(directory / "deny.yaml", DENY_LIST.encode())
    settings = SETTINGS.format(address=address, domain=TRUST_DOMAIN, url=livekit_url)
    _write(directory / "server.yaml", settings.encode())


def add_caller(directory: Path, name: str) -> tuple[list[Path], str]:
    """Issues a certificate to one more caller, and lets the policy list it unless it does already.

    Returns the new files and the entry that was added, if one was. Raises ConfigError, and then nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(name, "isn't a caller's name: up to 63 small letters, digits and hyphens, a letter first")
    authority = _kept_authority(directory)
    files = [directory / f"{name}.pem", directory / f"{name}.key"]
    if taken := next((path for path in files if os.path.lexists(path)), None):
        raise ConfigError(taken, "exists already; choose another name")
    uri = f"spiffe://{TRUST_DOMAIN}/{name}"
    policy = directory / "policy.yaml"
    entry = "" if uri in load_policy(policy, None).callers else ENTRY.format(id=uri)
    text = _with_caller(policy, entry) if entry else b""
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    leaf = issue(authority, dt.datetime.now(dt.UTC), [x509.UniformResourceIdentifier(uri)], usage)
    try:
        _write_leaf(directory, name, leaf)
        if entry:
            _replace(policy, text)
    except OSError as error:
        raise ConfigError(directory, f"can't be written: {error.strerror}") from None
    return files, entry


def _kept_authority(directory: Path) -> Authority:
    path = directory / "ca.key"
    try:
        key = load_pem_private_key(read_private(path), None)
        certificate = x509.load_pem_x509_certificate(read_bytes(directory / "ca.pem"))
    except (ValueError, TypeError):
        raise ConfigError(path, "isn't the key of ca.pem; name a folder that `livekit-auth-server dev` wrote") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(path, "isn't the key of ca.pem; name a folder that `livekit-auth-server dev` wrote")
    if (ends := certificate.not_valid_after_utc) <= dt.datetime.now(dt.UTC):
        raise ConfigError(directory / "ca.pem", f"expired on {ends:%Y-%m-%d}; make a new deployment")
    return Authority(key, certificate)


def _with_caller(policy: Path, entry: str) -> bytes:
    """The policy's text with an entry put first under `callers`, and all else as it is. Raises ConfigError."""
    text = read_bytes(policy).decode()
    by_hand = ConfigError(policy, f"is written in a way that can only be changed by hand; add this caller:\n{entry}")
    found = re.search(r"^callers:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*(?=([ \t]*)- )", text, re.MULTILINE)
    if found is None:
        raise by_hand
    content = (text[: found.end()] + indent(entry, found[1]) + text[found.end() :]).encode()
    try:
        compile_policy(Document.parse(policy, content), None)
    except ConfigError:
        raise by_hand from None
    return content


def _replace(path: Path, content: bytes) -> None:
    """Swaps the file's content in one step, so that a running server never reads half of it."""
    new = path.with_name(f".{path.name}.new")
    _write(new, content)
    new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)


def _check(what: str, check: Callable[[object], str], value: str) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ConfigError(what, str(error)) from None


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
