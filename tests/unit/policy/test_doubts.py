"""What loads and is probably a mistake is told: in CAs, and in what a policy says of callers, rooms and projects."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from livekit_auth_server.cli.app import app
from livekit_auth_server.core.identity import Identifier, TrustBundles
from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.policy.doubts import of_policy
from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.trust.doubts import of_bundles
from support.pki import CLIENT, NOW, SERVER, Authority, key_usage, name

if TYPE_CHECKING:
    from pathlib import Path

    from livekit_auth_server.core.policy import Policy

T0 = int(NOW.timestamp())
DAY = dt.timedelta(days=1)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
USAGE = key_usage(key_cert_sign=True, crl_sign=True, digital_signature=False)


def ca(
    usage: x509.KeyUsage | None = USAGE,
    *,
    usage_critical: bool = True,
    constraints_critical: bool = True,
    title: str | None = "odd CA",
    key: Any = None,
    extension: tuple[x509.ExtensionType, bool] | None = None,
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + 9 * DAY,
) -> Authority:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(title))
        .issuer_name(name(title))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=constraints_critical)
    )
    if usage is not None:
        builder = builder.add_extension(usage, critical=usage_critical)
    if extension is not None:
        builder = builder.add_extension(extension[0], critical=extension[1])
    return Authority(builder.sign(key, hashes.SHA256()), key)


CAS: dict[str, tuple[dict[str, Any], str]] = {
    "proper": ({}, ""),
    "usage that isn't critical": ({"usage_critical": False}, ""),
    "no usage": ({"usage": None}, "no key usage; make it again with openssl req -x509 -addext keyUsage=critical,keyC"),
    "usage without certificates": ({"usage": key_usage(digital_signature=True)}, "without keyCertSign; make it again"),
    "usage without CRLs": ({"usage": key_usage(digital_signature=False, key_cert_sign=True)}, ""),
    "constraints": ({"constraints_critical": False}, "-addext basicConstraints=critical,CA:TRUE"),
    "no subject": ({"title": None}, "-subj /CN=NAME"),
    "a curve": ({"key": ec.generate_private_key(ec.SECP256K1())}, "neither ECDSA on P-256"),
    "short RSA": ({"key": rsa.generate_private_key(65537, 1024)}, "nor RSA of 2048 bits or more"),  # noqa: S505
    "an extension": ({"extension": (UNKNOWN, True)}, "critical extension that this server doesn't know"),
    "an extension that may be ignored": ({"extension": (UNKNOWN, False)}, ""),
    "for servers": ({"extension": (x509.ExtendedKeyUsage([SERVER]), False)}, "without clientAuth"),
    "for clients": ({"extension": (x509.ExtendedKeyUsage([CLIENT]), False)}, ""),
    "over": ({"start": NOW - 3 * DAY, "end": NOW - DAY}, "expired at"),
    "to come": ({"start": NOW + DAY}, "isn't valid before"),
}


@pytest.mark.parametrize("shape", CAS)
def test_a_ca_is_named_when_its_callers_are_refused_and_only_then(shape: str) -> None:
    options, expected = CAS[shape]
    authority = ca(**options)
    bundles = TrustBundles({"example.org": (authority.certificate,)})
    found = list(of_bundles(bundles, T0))
    leaf = authority.issue(uris=["spiffe://example.org/web"])
    try:
        Identifier(bundles).identify(leaf.leaf_pem, b"", T0)
    except Refusal:
        assert len(found) == 1
        subject = "without a subject" if shape == "no subject" else "CN=odd CA"
        assert found[0].startswith(f"bundle of example.org: callers of the CA {subject} are refused: it ")
        assert expected
        assert expected in found[0]
    else:
        assert (found, expected) == ([], "")


def test_the_cas_of_dns_names_are_looked_at_too() -> None:
    bad, good = ca(None).certificate, ca().certificate
    assert len(list(of_bundles(TrustBundles({"example.org": (good,)}, (bad, good)), T0))) == 1


POLICY = """\
version: 1
roles: {guest: {video: {room_join: true}}}
callers:
  - id: spiffe://example.org/web
    allow:
      - name: consult
        projects: [default]
        roles: [guest]
        rooms: [{prefix: "consult-*"}, {prefix: "c*d"}, {exact: "*"}]
        identities: [{prefix: user-}]
  - id: spiffe://example.com/web
  - id: dns:legacy.example.org
"""


def loaded(folder: Path, text: str, name: str = "policy.yaml") -> tuple[Policy, Path]:
    path = folder / name
    path.write_text(text)
    return load_policy(path, frozenset({"default", "second"})), path


def test_stars_and_callers_without_a_bundle_are_told(tmp_path: Path) -> None:
    policy, path = loaded(tmp_path, POLICY)
    star = "stands for itself; write {prefix: …} without it"
    stars = [
        f'policy: spiffe://example.org/web, consult, rooms: the * in "consult-*" {star}',
        f'policy: spiffe://example.org/web, consult, rooms: the * in "*" {star}',
    ]
    assert list(of_policy(policy, path)) == stars
    authority = ca().certificate
    assert list(of_policy(policy, path, TrustBundles({"example.org": (authority,)}))) == [
        *stars,
        "policy: spiffe://example.com/web can never call: identity.trust_domains has no bundle for it",
        "policy: dns:legacy.example.org can never call: identity.dns_bundle has no bundle for it",
    ]
    everything = TrustBundles({"example.org": (authority,), "example.com": (authority,)}, (authority,))
    assert list(of_policy(policy, path, everything)) == stars


PROJECTS = """\
version: 1
callers:
  - id: dns:one.example.org
    allow: [{projects: [default]}, {projects: [default]}]
    verify: {webhooks: any, tokens: any}
    read_decisions: any
  - id: dns:several.example.org
    allow: [{projects: [default]}, {projects: [second]}]
  - id: dns:default.example.org
    allow: [{projects: any}]
    default_project: second
  - id: dns:any.example.org
    allow: [{projects: any}]
"""
GETS = "a request without a project gets PROJECT_REQUIRED; set default_project to one of them"


def test_a_caller_with_several_projects_and_no_default_is_told_once(tmp_path: Path) -> None:
    assert list(of_policy(*loaded(tmp_path, PROJECTS))) == [
        f"policy line 7: dns:several.example.org has several projects and no default_project: {GETS}",
        f"policy line 12: dns:any.example.org has several projects and no default_project: {GETS}",
    ]


def test_json_has_the_line_too(tmp_path: Path) -> None:
    callers = [{"id": f"dns:{name}.example.org", "allow": [{"projects": "any"}]} for name in ("a", "b")]
    text = json.dumps({"version": 1, "callers": callers}, indent=1)
    found = list(of_policy(*loaded(tmp_path, text, "policy.json")))
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line == "  {"]
    assert [line.split(":")[0] for line in found] == [f"policy line {number}" for number in lines]


def test_many_callers_without_a_default_project_are_counted(tmp_path: Path) -> None:
    callers = "".join(f"  - {{id: dns:c{n}.example.org, allow: [{{projects: any}}]}}\n" for n in range(20))
    found = list(of_policy(*loaded(tmp_path, f"version: 1\ncallers:\n{callers}")))
    assert [line.split(" has ")[0] for line in found[:-1]] == [
        f"policy line {n + 3}: dns:c{n}.example.org" for n in range(16)
    ]
    assert found[-1] == "policy: 4 more callers have several projects and no default_project"


def test_check_warns_and_exits_with_1_when_it_is_strict(tmp_path: Path) -> None:
    _, path = loaded(tmp_path, PROJECTS)
    for options, code in (((), 0), (("--strict",), 1)):
        checked = CliRunner().invoke(app, ["policy", "check", str(path), *options])
        assert checked.exit_code == code
        assert "WARNING policy line 7: dns:several.example.org has several projects and no def" in checked.stderr
