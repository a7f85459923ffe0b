"""A real Prometheus scrapes a real server that has had calls of every kind: no panel and no alert is without data."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from ruamel.yaml import YAML

from livekit_auth.sync import AuthClient
from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import SECRETS, Deployment
from support.otlp_collector import Collector, collecting
from support.ports import free_port
from support.redis_server import RedisServer
from support.signing import event, webhook_token
from telemetry.prometheus_server import Prometheus, prometheus
from telemetry.worker_page import worker_page

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "livekit-auth.json").read_text())
ALERTS = [
    rule for group in YAML(typ="safe").load(DEPLOY / "prometheus" / "alerts.yaml")["groups"] for rule in group["rules"]
]
JOB, WORKERS = "livekit-auth", "livekit-auth-workers"
ROUNDS, PAUSE = 12, 1.0  # of calls, and seconds between them
METRIC = re.compile(r"\b(?:livekit_auth|process)_[a-z_]+\b(?=[{\[) ]|$)|\bup\b")
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    if panel["type"] != "row"
    for target in panel["targets"]
]
# Panels of what only a supervisor with workers knows: one process has no such series.
OF_WORKERS = {"livekit_auth_workers", "livekit_auth_workers_live", "livekit_auth_worker_restarts_total"}


@dataclass(frozen=True, slots=True)
class Watched:
    """The server, its Prometheus and its collector, after calls of every kind."""

    server: Deployment
    prometheus: Prometheus
    collector: Collector

    def expression(self, text: str, job: str) -> str:
        """A panel's query as Grafana would send it."""
        return text.replace("$job", job).replace("$instance", ".+").replace("$__rate_interval", "30s")


def every_kind_of_call(server: Deployment) -> None:
    web = server.caller("spiffe://example.org/web")
    ask = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
    body = event()
    genuine = pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body))
    hooks = server.caller("spiffe://example.org/hooks")
    token = web.IssueToken(ask).token
    web.IssueToken(pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1", validate_only=True))
    web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=[ask, pb.IssueTokenRequest(role="guest", room="board")]))
    verified = hooks.VerifyWebhook(genuine)
    hooks.VerifyToken(pb.VerifyTokenRequest(token=token))
    hooks.AckWebhook(
        pb.AckWebhookRequest(project="alpha", event_id=verified.event.id, body_sha256=bytes.fromhex("00" * 32))
    )
    limited = server.caller("spiffe://example.org/limited")
    stranger = server.caller("spiffe://example.org/stranger")
    altered = pb.VerifyWebhookRequest(body=body + b" ", authorization=webhook_token(body))
    refused = [
        lambda: web.IssueToken(pb.IssueTokenRequest(role="guest", room="board-1", identity="user-1")),
        lambda: web.IssueToken(pb.IssueTokenRequest(role="guest")),
        lambda: hooks.VerifyWebhook(altered),
        lambda: stranger.IssueToken(ask),
        *[lambda: limited.GetCaller(pb.GetCallerRequest())] * 4,
    ]
    for call in refused:
        with suppress(grpc.RpcError):
            call()


def handled(server: Deployment, client: AuthClient, number: int) -> None:
    """A webhook that comes a second time after it was handled, by the Python client."""
    body = event(id=f"EV_handled{number}")
    verified = client.verify_webhook(body, webhook_token(body))
    client.ack_webhook(verified)
    assert client.verify_webhook(body, webhook_token(body)).is_duplicate


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    server, metrics = Deployment(directory, selfcheck="warn"), free_port()
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis, collecting() as collector:
        server.write(
            f"metrics: 127.0.0.1:{metrics}\nmetrics_callers: 3\naudit: {{path: audit, required: true}}\n"
            f"redis: {{url: 'redis://127.0.0.1:{redis.port}/0'}}\ntracing: {{endpoint: '{collector.endpoint}'}}\n"
        )
        configure(server)
        server.start()
        page = f"http://127.0.0.1:{metrics}/metrics"
        with worker_page(page) as workers:
            targets = {JOB: [f"127.0.0.1:{metrics}"], WORKERS: [f"127.0.0.1:{workers}"]}
            rules = DEPLOY / "prometheus" / "alerts.yaml"
            with prometheus(tmp_path_factory.mktemp("prometheus"), targets, rules) as running:
                calls(server)
                yield Watched(server, running, collector)
        assert server.stop() == 0


def configure(server: Deployment) -> None:
    """A caller with a limit, and a CRL whose next issue is overdue."""
    (server.directory / "audit").mkdir()
    policy, settings = server.directory / "policy.yaml", server.directory / "server.yaml"
    limited = '  - {id: "spiffe://example.org/limited", verify: {tokens: [alpha]}, limits: [{rate: 1/s}]}\n'
    policy.write_text(policy.read_text() + limited)
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    (server.directory / "crl.pem").write_bytes(server.example_ca.crl(next_update=yesterday))
    named = "dns_bundle: dns.pem\n  crls: [crl.pem]\n"
    settings.write_text(settings.read_text().replace("dns_bundle: dns.pem\n", named))


def calls(server: Deployment) -> None:
    """Rounds of calls a second apart; the policy is reloaded between, and then can't be any more."""
    policy = server.directory / "policy.yaml"
    server.example_ca.issue(uris=["spiffe://example.org/hooks"]).write(server.directory, "hooks")
    client = AuthClient(
        f"localhost:{server.port}",
        ca=server.directory / "server-ca.pem",
        cert=server.directory / "hooks.pem",
        key=server.directory / "hooks.key",
    )
    with client:
        for number in range(ROUNDS):
            every_kind_of_call(server)
            handled(server, client, number)
            if number == ROUNDS // 3:
                policy.write_text(policy.read_text() + "# changed\n")
            if number == ROUNDS // 2:
                policy.write_text("callers: nonsense\n")
            time.sleep(PAUSE)
    time.sleep(2 * PAUSE)


@pytest.mark.parametrize("job", [JOB, WORKERS])
@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[f"{title}-{n}" for n, (title, _) in enumerate(QUERIES)])
def test_every_query_of_the_dashboard_has_data(watched: Watched, title: str, query: str, job: str) -> None:
    samples = watched.prometheus.query(watched.expression(query, job))
    if job == JOB and OF_WORKERS & set(METRIC.findall(query)):
        assert not samples
        return
    assert samples, query
    assert all(float(sample["value"][1]) == float(sample["value"][1]) for sample in samples), samples  # no NaN


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_metric_of_an_alert_exists_and_its_expression_is_good(watched: Watched, rule: dict[str, Any]) -> None:
    names = set(METRIC.findall(rule["expr"]))
    assert names
    for name in names:
        assert watched.prometheus.query(f"count({name})"), name
    watched.prometheus.query(rule["expr"])


def test_what_is_wrong_is_what_the_alerts_see(watched: Watched) -> None:
    """The policy file is bad and the CRL overdue; the server's certificate ends tomorrow and no CA before 30 days."""
    states = {rule["name"]: rule for rule in watched.prometheus.rules()}
    assert not {name: rule["lastError"] for name, rule in states.items() if rule.get("lastError")}
    seen = {name for name, rule in states.items() if rule["state"] in {"pending", "firing"}}
    wrong = {
        "LivekitAuthReloadFailing",
        "LivekitAuthStaleCrl",
        "LivekitAuthCertificateExpiring",
        "LivekitAuthCaExpiring",
    }
    assert wrong <= seen
    sound = {"LivekitAuthDown", "LivekitAuthAuditUnwritable", "LivekitAuthRedisAway", "LivekitAuthErrors"}
    assert not sound & seen
    assert watched.prometheus.value('livekit_auth_reload_failed{job="livekit-auth", kind="policy"}') == 1


@pytest.mark.parametrize(
    ("series", "count"),
    [
        ('livekit_auth_decisions_total{method="IssueToken", outcome="issued"}', ROUNDS),
        ('livekit_auth_decisions_total{outcome="dry_run"}', ROUNDS),
        ('livekit_auth_decisions_total{method="BatchIssueTokens", outcome="issued"}', ROUNDS),
        ('livekit_auth_decisions_total{outcome="denied", reason="CALLER_NOT_LISTED"}', ROUNDS),
        ("livekit_auth_mint_seconds_count", 2 * ROUNDS),
        ("livekit_auth_audit_wait_seconds_count", 3 * ROUNDS),
        ('livekit_auth_webhooks_total{duplicate_status="duplicate"}', ROUNDS),
        ('livekit_auth_webhooks_total{duplicate_status="new"}', 2 * ROUNDS),
        ('livekit_auth_calls_total{method="VerifyWebhook", reason="BODY_ALTERED"}', ROUNDS),
        ('livekit_auth_client_calls_total{client="livekit-auth-python"}', 3 * ROUNDS),
        ('livekit_auth_reload_total{kind="policy", outcome="ok"}', 1),
        ('livekit_auth_limits_fallback{state="shared"}', 1),
        ("livekit_auth_audit_up", 1),
        ("livekit_auth_policy_callers", 7),
    ],
)
def test_what_happened_is_what_was_counted(watched: Watched, series: str, count: int) -> None:
    job = f'job="{JOB}"'
    series = series.replace("{", f"{{{job}, ") if "{" in series else f"{series}{{{job}}}"
    assert watched.prometheus.value(series) == count


def test_series_stay_few_and_hold_nothing_of_what_was_asked(watched: Watched) -> None:
    every = watched.prometheus.query(f'{{job="{JOB}", __name__=~"livekit_auth.+"}}')
    assert len(every) < 400
    labels = " ".join(value for sample in every for value in sample["metric"].values())
    assert not re.search(r"consult-1|board|user-1|EV_|eyJ|[0-9a-f]{24}", labels.replace(revision(watched), ""))
    assert not any(secret in labels for secret in SECRETS.values())
    callers = watched.prometheus.query(f'count by (caller) (livekit_auth_caller_calls_total{{job="{JOB}"}})')
    names = {sample["metric"]["caller"] for sample in callers}
    assert len(names) == 4  # the first three, and the others
    assert "other" in names
    assert "spiffe://example.org/stranger" not in names


def revision(watched: Watched) -> str:
    [sample] = watched.prometheus.query(f'livekit_auth_policy_info{{job="{JOB}"}}')
    return sample["metric"]["revision"]


def test_the_collector_has_a_span_for_each_call(watched: Watched) -> None:
    deadline = time.monotonic() + 10
    ended = watched.prometheus.value(f'livekit_auth_spans_total{{job="{JOB}", outcome="ended"}}')
    while len(watched.collector.spans) < (ended or 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(watched.collector.spans) == ended
    assert watched.prometheus.value(f'sum(livekit_auth_calls_total{{job="{JOB}"}})') == ended
