"""The documents say what the code does: lists are complete, examples load, commands exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import UnionType
from typing import get_args
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.config.settings import Settings
from livekit_auth_server.core.grants import ORDINARY_GRANTS, POWERS, UNSCOPED_POWERS
from livekit_auth_server.core.refusal import Reason
from livekit_auth_server.files.document import Document
from livekit_auth_server.policy.explain import ExpectationsFile
from livekit_auth_server.policy.policy_file import compile_policy
from livekit_auth_server.service.status import CODE_OF
from support.deployment import Deployment
from support.ports import free_port
from support.signing import event, webhook_token
from support.snippets import DOCUMENTS, ROOT
from support.snippets import blocks as all_blocks


def blocks(path: Path, language: str) -> list[str]:
    return [text for found, text in all_blocks(path) if found == language]


def test_every_reason_is_documented_with_its_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert dict(rows) == {reason.value: CODE_OF[reason] for reason in Reason}


def test_every_key_of_an_errors_metadata_is_documented_with_its_reasons() -> None:
    """The comments in errors.proto name the keys in quotation marks."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    documented = {(reason, key) for key, reasons in rows for reason in re.findall(r"`(\w+)`", reasons)}
    contract = (ROOT / "protos/livekit_auth/v1/errors.proto").read_text()
    values = re.findall(r"((?:^  //.*\n)+)^  ERROR_REASON_(\w+) = ", contract, re.MULTILINE)
    in_contract = {(reason, key) for comment, reason in values for key in re.findall(r'"([a-z_]+)"', comment)}
    assert documented == {(reason, key) for reason, key in in_contract if key != "any"}


def test_every_power_and_ordinary_grant_is_documented() -> None:
    text = (ROOT / "docs/policy.md").read_text()
    table = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text.split("## powers")[1].split("\n## ")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == POWERS
    ordinary = re.search(r"^Ordinary grants: (.*)$", text, re.MULTILINE)
    assert ordinary
    assert set(re.findall(r"`(\w+)`", ordinary[1])) == ORDINARY_GRANTS
    unscoped = re.search(r"^(.*) aren't scoped to a room by LiveKit", text, re.MULTILINE)
    assert unscoped
    assert set(re.findall(r"`(\w+)`", unscoped[1])) == UNSCOPED_POWERS


def test_every_setting_is_documented() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    documented = set(re.findall(r"`([\w.]+)`", " ".join(rows)))
    expected: set[str] = set()
    for name, field in Settings.model_fields.items():
        optional = get_args(field.annotation) if isinstance(field.annotation, UnionType) else ()
        groups = (kind for kind in (field.annotation, *optional) if hasattr(kind, "model_fields"))
        members = getattr(next(groups, None), "model_fields", None)
        expected |= {f"{name}.{member}" for member in members} if members else {name}
    expected = expected - {"projects"} | {"projects.NAME.url", "projects.NAME.keys"}
    assert documented == expected


def test_every_metric_is_documented_with_its_labels(tmp_path: Path) -> None:
    """Against a real server with all that makes metrics, after calls that give each of them a value."""
    text = (ROOT / "docs/telemetry.md").read_text()
    rows = re.findall(r"^\| `(livekit_auth_\w+)` \| ((?:`\w+`(?:, )?)*) ?\|", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == metrics_of_a_server(tmp_path)


def metrics_of_a_server(directory: Path) -> dict[str, set[str]]:
    """The name of each metric of this project, as Prometheus shows it, with its labels."""
    server, port = Deployment(directory, selfcheck="warn"), free_port()
    nowhere = f"127.0.0.1:{free_port()}"
    server.write(
        f"metrics: 127.0.0.1:{port}\nmetrics_callers: 1\nunlisted_limits: [{{rate: 1/d}}]\n"
        f"redis: {{url: 'redis://{nowhere}/0'}}\ntracing: {{endpoint: 'http://{nowhere}/v1/traces'}}\n"
        f"audit: {{otlp: {{endpoint: 'http://{nowhere}/v1/logs'}}}}\nshadow_policy: policy.yaml\n"
    )
    server.start()
    try:
        server.caller("spiffe://example.org/web").IssueToken(
            pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")
        )
        stranger, body = server.caller("spiffe://example.org/stranger"), event()
        for _ in range(2):
            stranger.GetCaller.future(pb.GetCallerRequest()).exception()
        webhook = pb.VerifyWebhookRequest(body=body, authorization=webhook_token(body))
        server.caller("spiffe://example.org/hooks").VerifyWebhook(webhook)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            page = answer.read().decode()
    finally:
        server.stop()
    families = [f for f in text_string_to_metric_families(page) if f.name.startswith("livekit_auth_")]
    made = re.compile(r".*_created\Z")  # when a series was first counted, as Prometheus' client adds it
    return {
        f.name + "_total" * (f.type == "counter"): {*f.samples[0].labels} - {"le"}
        for f in families
        if not made.match(f.name)
    }


def test_the_examples_of_the_policy_page_load() -> None:
    policy, expectations = blocks(ROOT / "docs/policy.md", "yaml")
    compiled = compile_policy(Document.parse(Path("policy.md"), policy.encode()), frozenset({"default"}))
    assert len(compiled.callers) == 3
    assert ExpectationsFile.model_validate(YAML(typ="safe").load(expectations)).expect


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_documents_parses(path: Path) -> None:
    for block in blocks(path, "python"):
        ast.parse(block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/adr"
    listed = re.findall(
        r"^\| \[(\d{4})\]\((\1-[\w.-]+\.md)\) \| .+ \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert [name for _, name in listed] == sorted(path.name for path in folder.glob("[0-9]*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_is_told_to_install_a_name_that_nothing_is_published_under(path: Path) -> None:
    """Whoever takes the name on the package index would be installed."""
    assert not re.findall(r"pip install [^\n`]*[' ]livekit-auth(?:-server)?(?![\w-])", path.read_text())


def test_no_error_tells_to_install_a_name_that_nothing_is_published_under() -> None:
    code = [path for folder in ("server", "clients/python") for path in (ROOT / folder).rglob("*.py")]
    assert len(code) > 50
    for path in code:
        assert not re.findall(r"pip install ['\"]?livekit-auth", path.read_text()), path


def test_the_make_targets_that_documents_name_exist() -> None:
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", path.read_text(), re.MULTILINE))
        assert named <= known, path


def test_the_readme_begins_as_the_start_does() -> None:
    assert blocks(ROOT / "README.md", "sh")[1:] == blocks(ROOT / "docs/start.md", "sh")[:2]
