"""The alert rules by promtool's own unit tests, and that these leave no alert out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from telemetry.prometheus_server import program

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"
TESTS = YAML(typ="safe").load(RULES / "alerts_test.yaml")["tests"]


def promtool(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(program("promtool")), "test", "rules", str(directory / "alerts_test.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(RULES / "alerts.yaml")["groups"] for rule in group["rules"]]


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool(RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    checks = [check for test in TESTS for check in test["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
    assert fires == quiet == {rule["alert"] for rule in rules()}


def test_each_alert_says_what_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_that_never_fires_is_found(tmp_path: Path, rule: dict[str, Any]) -> None:
    """The tests hold the rules: without its expression each of them fails."""
    text = (RULES / "alerts.yaml").read_text()
    before, after = text.split(f"- alert: {rule['alert']}\n", 1)
    _, marker, rest = after.partition("        labels:")
    (tmp_path / "alerts.yaml").write_text(
        f"{before}- alert: {rule['alert']}\n        expr: vector(0) > 1\n{marker}{rest}"
    )
    (tmp_path / "alerts_test.yaml").write_text((RULES / "alerts_test.yaml").read_text())
    done = promtool(tmp_path)
    assert done.returncode == 1
    assert rule["alert"] in done.stdout + done.stderr
