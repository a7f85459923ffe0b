"""Who may call at all: over real TLS, with real certificates."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.pki import NOW, Authority, Credential
from support.refusals import refusal

if TYPE_CHECKING:
    from pathlib import Path

    from support.deployment import Deployment

WHO = pb.GetCallerRequest()


def test_a_proper_certificate_is_who_it_says(server: Deployment) -> None:
    answer = server.caller("spiffe://example.org/web").GetCaller(WHO)
    assert (answer.workload_id, answer.listed) == ("spiffe://example.org/web", True)


def test_intermediates_sent_by_the_client_lead_to_the_bundle(server: Deployment) -> None:
    intermediate = Authority.create("intermediate", parent=server.example_ca)
    answer = server.stub(intermediate.issue(uris=["spiffe://example.org/web"])).GetCaller(WHO)
    assert answer.listed


def test_each_trust_domain_speaks_for_itself(server: Deployment) -> None:
    answer = server.stub(server.other_ca.issue(uris=["spiffe://other.org/web"])).GetCaller(WHO)
    assert (answer.workload_id, answer.listed) == ("spiffe://other.org/web", True)


def test_a_dns_name_is_an_identity_where_enabled(server: Deployment) -> None:
    answer = server.stub(server.dns_ca.issue(dns=["legacy.example.org"])).GetCaller(WHO)
    assert (answer.workload_id, answer.listed) == ("dns:legacy.example.org", True)


def test_an_unlisted_caller_learns_its_identity_and_no_more(server: Deployment) -> None:
    answer = server.caller("spiffe://example.org/stranger").GetCaller(WHO)
    assert answer.workload_id == "spiffe://example.org/stranger"
    assert not answer.listed
    assert not answer.policy_revision


def test_an_unlisted_caller_learns_what_the_server_is_and_not_what_others_may(server: Deployment) -> None:
    stub = server.caller("spiffe://example.org/stranger")
    listed = server.caller("spiffe://example.org/web")
    assert stub.GetServerInfo(pb.GetServerInfoRequest()) == listed.GetServerInfo(pb.GetServerInfoRequest())
    refused = [
        refusal(lambda: stub.ListPermissions(pb.ListPermissionsRequest(page_size=-1))),
        refusal(lambda: stub.ListProjects(pb.ListProjectsRequest(page_token="?"))),
        refusal(lambda: stub.GetDecision(pb.GetDecisionRequest())),
    ]
    assert {(got.code, got.reason) for got in refused} == {("PERMISSION_DENIED", "CALLER_NOT_LISTED")}


def test_an_unlisted_caller_learns_nothing_about_its_request(server: Deployment) -> None:
    stub = server.caller("spiffe://example.org/stranger")
    good = refusal(lambda: stub.IssueToken(pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")))
    bad = refusal(lambda: stub.IssueToken(pb.IssueTokenRequest(identity="x" * 300)))
    raw = server.raw(server.example_ca.issue(uris=["spiffe://example.org/stranger"]), "IssueToken")
    garbage = refusal(lambda: raw(b"\xff\xff"))
    decisions = {answer.metadata.pop("decision_id") for answer in (good, bad, garbage)}
    assert len(decisions) == 3
    assert good == bad == garbage
    assert (good.code, good.reason) == ("PERMISSION_DENIED", "CALLER_NOT_LISTED")


@pytest.mark.parametrize("kind", ["none", "wrong CA", "expired", "not yet valid"])
def test_a_handshake_without_a_valid_certificate_fails(server: Deployment, kind: str) -> None:
    day, uris = dt.timedelta(days=1), ["spiffe://example.org/web"]
    credential: Credential | None = {
        "none": None,
        "wrong CA": Authority.create("stranger").issue(uris=uris),
        "expired": server.example_ca.issue(uris=uris, not_before=NOW - 2 * day, not_after=NOW - day),
        "not yet valid": server.example_ca.issue(uris=uris, not_before=NOW + day, not_after=NOW + 2 * day),
    }[kind]
    assert refusal(lambda: server.stub(credential).GetCaller(WHO)).code == "UNAVAILABLE"


def certificates(server: Deployment) -> dict[str, Credential]:
    example, web = server.example_ca, "spiffe://example.org/web"
    odd_ids = {
        "trailing slash": "spiffe://example.org/web/",
        "dot segment": "spiffe://example.org/x/../web",
        "percent": "spiffe://example.org/we%62",
        "upper-case domain": "spiffe://EXAMPLE.org/web",
        "upper-case scheme": "SPIFFE://example.org/web",
        "NUL": "spiffe://example.org/web\0.evil",
        "line break": "spiffe://example.org/web\n",
        "no path": "spiffe://example.org",
        "double slash": "spiffe://example.org//web",
        "port": "spiffe://example.org:443/web",
        "https": "https://example.org/web",
        "unknown trust domain": "spiffe://third.org/web",
    }
    return {
        **{name: example.issue(uris=[uri]) for name, uri in odd_ids.items()},
        "a CA of another trust domain": server.other_ca.issue(uris=[web]),
        "the DNS CA for a SPIFFE id": server.dns_ca.issue(uris=[web]),
        "a SPIFFE CA for a DNS name": example.issue(dns=["legacy.example.org"]),
        "two URIs": example.issue(uris=[web, "spiffe://example.org/admin"]),
        "the same URI twice": example.issue(uris=[web, web]),
        "common name only": example.issue(common_name="spiffe://example.org/web"),
        "two DNS names": server.dns_ca.issue(dns=["legacy.example.org", "other.example.org"]),
        "wildcard DNS name": server.dns_ca.issue(dns=["*.example.org"]),
        "CA:TRUE leaf": example.issue(uris=[web], ca=True),
        "no digitalSignature": example.issue(uris=[web], digital_signature=False),
    }


CASES = [
    *("trailing slash", "dot segment", "percent", "upper-case domain", "upper-case scheme", "NUL", "line break"),
    *("no path", "double slash", "port", "https", "unknown trust domain", "a CA of another trust domain"),
    *("the DNS CA for a SPIFFE id", "a SPIFFE CA for a DNS name", "two URIs", "the same URI twice"),
    *("common name only", "two DNS names", "wildcard DNS name", "CA:TRUE leaf", "no digitalSignature"),
]


@pytest.fixture(scope="module")
def odd(server: Deployment) -> dict[str, Credential]:
    made = certificates(server)
    assert sorted(made) == sorted(CASES)
    return made


@pytest.mark.parametrize("case", CASES)
def test_an_unusual_certificate_is_nobody(server: Deployment, odd: dict[str, Credential], case: str) -> None:
    got = refusal(lambda: server.stub(odd[case]).GetCaller(WHO))
    # OpenSSL itself turns some of them away in the handshake; either way nobody gets in.
    assert (got.code, got.reason) in {("UNAUTHENTICATED", "CERTIFICATE_INVALID"), ("UNAVAILABLE", "")}
    if case not in {"CA:TRUE leaf", "no digitalSignature"}:
        assert got.reason == "CERTIFICATE_INVALID"


def test_identity_never_comes_from_a_header(server: Deployment) -> None:
    headers = (
        ("x-forwarded-client-cert", "URI=spiffe://example.org/admin"),
        ("x-spiffe-id", "spiffe://example.org/admin"),
        ("authorization", "Bearer admin"),
    )
    answer = server.caller("spiffe://example.org/web").GetCaller(WHO, metadata=headers)
    assert answer.workload_id == "spiffe://example.org/web"


@pytest.mark.parametrize(
    ("version", "accepted"), [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)], ids=["1.2", "1.3"]
)
def test_only_tls_1_3_is_spoken(server: Deployment, tmp_path: Path, version: ssl.TLSVersion, accepted: bool) -> None:  # noqa: FBT001
    certificate, key = server.example_ca.issue(uris=["spiffe://example.org/web"]).write(tmp_path, "web")
    context = ssl.create_default_context(cafile=server.directory / "server-ca.pem")
    context.load_cert_chain(certificate, key)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        if accepted:
            with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                assert wrapped.version() == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(raw, server_hostname="localhost")
