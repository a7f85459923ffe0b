"""The audit trail's copy as a collector gets it from the real server, and what happens when it doesn't get it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.deployment import SECRETS, Deployment, environment
from support.otlp_collector import collecting, members
from support.ports import free_port
from support.probes import Probes, within
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub

pytestmark = pytest.mark.slow

WEB = "spiffe://example.org/web"
HEADER = "Bearer header-MARKER"
INFO, WARN = 9, 13  # SeverityNumber of OTLP
TRACE = "0af7651916cd43dd8448eb211c80319c"
NUMBERS = itertools.count()


class Copied:
    """A server whose audit trail is in a folder, with a copy to a collector."""

    def __init__(self, folder: Path, endpoint: str, more: str = "") -> None:
        self.deployment, self.path = Deployment(folder), folder / "audit" / "audit.0.jsonl"
        self.probes = Probes(free_port())
        self.deployment.private("headers", f"Authorization: {HEADER}\n")
        otlp = f"{{endpoint: '{endpoint}', headers_file: headers{more}}}"
        audit = f"audit: {{path: {self.path.parent}, required: true, patience: 1, otlp: {otlp}}}"
        self.deployment.write(f"{audit}\nmetrics: 127.0.0.1:{self.probes.port}")

    def start(self) -> AuthServiceStub:
        self.deployment.start()
        return self.deployment.caller(WEB)

    def lines(self) -> list[dict[str, Any]]:
        """What the file says, without what only the file has."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [
            {name: value for name, value in line.items() if name not in ("chain", "seq", "prev")}
            for line in lines
            if line["kind"] != "segment"
        ]

    def count(self, outcome: str) -> float:
        pattern = rf'^livekit_auth_audit_otlp_records_total\{{outcome="{outcome}"\}} (\S+)$'
        found = re.search(pattern, self.probes.metrics(), re.MULTILINE)
        assert found, outcome
        return float(found[1])


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Callable[..., Copied]]:
    made: list[Copied] = []

    def make(endpoint: str, more: str = "") -> Copied:
        made.append(Copied(tmp_path, endpoint, more))
        return made[-1]

    yield make
    for one in made:
        if one.deployment.process is not None:
            assert one.deployment.stop() == 0


def ask(**changes: Any) -> pb.IssueTokenRequest:
    """A request like no other."""
    request = pb.IssueTokenRequest(role="guest", room="consult-1", identity=f"user-{next(NUMBERS)}", metadata="MARKER")
    request.MergeFrom(pb.IssueTokenRequest(**changes))
    return request


def said(record: LogRecord) -> dict[str, Any]:
    """A log record as the line of the file that it copies."""
    kind = record.event_name.removeprefix("livekit_auth.audit.")
    assert record.body.string_value == f"audit {kind}"
    return {"kind": kind, "time": record.time_unix_nano // 1_000_000_000, **members(record)}


def applying(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if value not in ("", None, [])}


def test_every_line_of_the_file_arrives_with_all_that_applies(
    copied: Callable[..., Copied], monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        server = copied(collector.logs_endpoint)
        with monkeypatch.context() as patch:
            dead = f"http://127.0.0.1:{free_port()}"
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT"):
                patch.setenv(name, dead)
            for name in ("NO_PROXY", "no_proxy"):
                patch.setenv(name, "")
            patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-environment=env-MARKER")
            server.deployment.start()
        web = server.deployment.caller(WEB)
        parent = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        token = web.IssueToken(ask(), metadata=parent).token
        web.IssueToken(ask(validate_only=True))
        entries = [ask(), ask(room="board\n"), ask(role="moderator")]
        web.BatchIssueTokens(pb.BatchIssueTokensRequest(requests=entries))
        for _ in range(30):
            refusal(lambda: web.IssueToken(ask(room="board")))
        within(10, lambda: any(line["kind"] == "denials" for line in server.lines()), "counted denials")
        time.sleep(1.5)  # the denials' line of the last second
        lines = server.lines()
        logs = collector.wait_for_logs(len(lines))
        key = lambda line: json.dumps(line, sort_keys=True)  # noqa: E731
        assert sorted(map(said, logs), key=key) == sorted(map(applying, lines), key=key)
        for record in logs:
            denied = said(record).get("permitted") is False
            assert (record.severity_number, record.severity_text) == ((WARN, "WARN") if denied else (INFO, "INFO"))
        traced = [record for record in logs if record.trace_id]
        assert [(record.trace_id.hex(), said(record)["trace_id"]) for record in traced] == [(TRACE, TRACE)]
        path, headers, _ = collector.requests[0]
        assert (path, headers["authorization"], "x-environment" in headers) == ("/v1/logs", HEADER, False)
        about = {one.key: one.value.string_value for one in collector.resource_logs[0].resource.attributes}
        assert about["service.name"] == "livekit-auth"
        whole = b"".join(collector.taken)
        for secret in (token, *token.split("."), "MARKER", *SECRETS.values()):
            assert secret.encode() not in whole


@pytest.mark.parametrize("trouble", ["away", "slow", "failing", "refusing"])
def test_a_collector_in_trouble_stops_no_token(copied: Callable[..., Copied], trouble: str) -> None:
    with collecting() as collector:
        if trouble == "slow":
            collector.hanging.set()
        collector.status = {"failing": 503, "refusing": 400}.get(trouble, 200)
        dead = f"http://127.0.0.1:{free_port()}/v1/logs"
        server = copied(dead if trouble == "away" else collector.logs_endpoint)
        web = server.start()
        tokens = [web.IssueToken(ask()).token for _ in range(5)]
        if trouble == "refusing":
            within(15, lambda: server.count("failed") >= 3, "the count of what was refused")
        else:
            within(10, lambda: "audit records can't be exported" in server.deployment.log, "the log line")
        tokens += [web.IssueToken(ask()).token for _ in range(5)]
        assert all(tokens)
        assert server.probes.ready()
        log = server.deployment.log
        assert "header-MARKER" not in log
        assert log.count("audit records can't be exported") == 1
        if trouble in ("slow", "failing"):
            collector.hanging.clear()
            collector.status = 200
            within(15, lambda: server.count("exported") >= 10, "the records that waited")
            assert "audit records are exported again" in server.deployment.log


def test_a_required_collector_stops_issuance_and_readiness_says_why(copied: Callable[..., Copied]) -> None:
    with collecting() as collector:
        server = copied(collector.logs_endpoint, ", required: true")
        web = server.start()
        assert web.IssueToken(ask()).token
        collector.wait_for_logs(1)
        collector.status = 503
        assert web.IssueToken(ask()).token
        within(10, lambda: not server.probes.ready(), "the end of readiness")
        got = refusal(lambda: web.IssueToken(ask()))
        assert (got.code, got.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
        [why] = server.probes.state()["reasons"]
        assert why.startswith("the audit trail's collector takes no records: ")
        assert collector.logs_endpoint in why
        assert refusal(lambda: web.IssueToken(ask(room="board"))).reason == "ROOM_NOT_PERMITTED"
        assert len([line for line in server.lines() if line["kind"] == "decision" and line["permitted"]]) == 2
        collector.status = 200
        within(15, server.probes.ready, "readiness")
        assert web.IssueToken(ask()).token
        collector.wait_for_logs(4)
        assert server.count("dropped") == server.count("failed") == 0
        assert server.lines()[-1]["permitted"]


def test_check_refuses_what_the_server_would(copied: Callable[..., Copied]) -> None:
    server = copied("https://127.0.0.1:1/v1/logs")
    (server.deployment.directory / "headers").unlink()
    done = subprocess.run(
        server.deployment.command("check"), capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, "headers" in done.stderr) == (2, True)
    assert not server.path.exists()
