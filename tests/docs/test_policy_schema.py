"""The JSON Schema of policies: fresh, fit for what the loader takes, and against what a schema can know to be wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from livekit_auth_server.cli.devkit import POLICY as DEV_POLICY
from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, POWERS
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy.policy_file import compile_policy
from livekit_auth_server.policy.schema import schema, schema_text
from support.deployment import POLICY

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = {
    "docs/policy.md": re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/policy.md").read_text(), re.DOTALL)[0],
    "tests/e2e/policy.yaml": (ROOT / "tests/e2e/policy.yaml").read_text(),
    "the dev policy": DEV_POLICY,
    "the tests' policy": POLICY,
}


def data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_checked_in_schema_is_todays() -> None:
    """Write it anew: livekit-auth-server policy schema > docs/policy.schema.json"""
    assert (ROOT / "docs/policy.schema.json").read_text() == schema_text()


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "livekit_auth_server.cli", "policy", "schema"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == SCHEMA


def test_it_is_a_schema_of_draft_2020_12() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", EXAMPLES)
def test_policies_that_load_fit_the_schema(name: str) -> None:
    VALIDATOR.validate(data(EXAMPLES[name]))
    assert compile_policy(Document.parse(Path(name), EXAMPLES[name].encode()), None).callers


def test_every_field_is_described() -> None:
    for name, definition in {**SCHEMA["$defs"], "the file": SCHEMA}.items():
        assert definition["description"], name
        for field, about in definition["properties"].items():
            assert about.get("description"), f"{name}.{field}"


def test_every_power_and_grant_is_known() -> None:
    entry = SCHEMA["$defs"]["Allow"]["properties"]
    assert set(entry["powers"]["items"]["enum"]) == POWERS
    assert set(entry["grants"]["oneOf"][1]["items"]["enum"]) == ORDINARY_GRANTS
    assert SCHEMA["$defs"]["Role"]["properties"].keys() == GROUPS.keys()


def caller(fields: str) -> str:
    return f"version: 1\ncallers:\n  - {{id: 'spiffe://example.org/web', {fields}}}\n"


def role(fields: str) -> str:
    return f"version: 1\nroles: {{guest: {fields}}}\ncallers: []\n"


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "version: 1\n", "callers: []\n", "version: 2\ncallers: []\n", "version: '1'\ncallers: []\n"),
        *("version: 1\ncallers: {}\n", "version: 1\ncallers: []\nrules: []\n", "version: 1\ncallers: [{}]\n"),
        "version: 1\ncallers: [{id: web}]\n",
        "version: 1\ncallers: [{id: 'spiffe://Example.org/web'}]\n",
        "version: 1\ncallers: [{id: 'dns:*.example.org'}]\n",
        "version: 1\nroles: {Guest: {}}\ncallers: []\n",
        *(role("null"), role("{audio: {}}"), role("{video: {room_joins: true}}"), role("{video: {room_join: yes}}")),
        *(role("{video: {room_join: 1}}"), role("{video: {can_publish_sources: [video]}}"), role("{video: null}")),
        role("{video: {destination_room: 7}}"),
        *(caller("allow: {}"), caller("allow: [{}]"), caller("allow: [{projects: default}]"), caller("alow: []")),
        *(caller("allow: [{projects: [Default]}]"), caller("allow: [{projects: any, powers: any}]")),
        *(caller("allow: [{projects: any, powers: [root]}]"), caller("allow: [{projects: any, grants: [agent]}]")),
        *(caller("allow: [{projects: any, rooms: all}]"), caller("allow: [{projects: any, rooms: [lobby]}]")),
        *(caller("allow: [{projects: any, rooms: [{}]}]"), caller("allow: [{projects: any, rooms: [{prefix: ''}]}]")),
        caller("allow: [{projects: any, rooms: [{exact: a, prefix: b}]}]"),
        caller("allow: [{projects: any, rooms: [{regex: a}]}]"),
        *(caller("allow: [{projects: any, ttl: 10m}]"), caller("allow: [{projects: any, ttl: {max: 1d}}]")),
        *(caller("allow: [{projects: any, ttl: {max: 60}}]"), caller("allow: [{projects: any, ttl: {max: ''}}]")),
        *(caller("default_project: [a]"), caller("default_project: A"), caller("read_decisions: default")),
        *(caller("verify: [default]"), caller("verify: {webhook: any}"), caller("limits: []")),
        *(caller("limits: [{rate: 20}]"), caller("limits: [{rate: 20/s, methods: [BatchIssueTokens]}]")),
    ],
)
def test_what_the_loader_refuses_for_its_form_the_schema_refuses_too(text: str) -> None:
    assert list(VALIDATOR.iter_errors(data(text))), "the schema takes it"
    with pytest.raises(ConfigError):
        compile_policy(Document.parse(Path("policy.yaml"), text.encode()), None)
