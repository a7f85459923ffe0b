"""What `serve` shows in a terminal when it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from livekit_auth_server.cli import devkit
from livekit_auth_server.cli.start_summary import StartSummary
from livekit_auth_server.config.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

SERVING = {"event": "serving", "level": "info", "port": 7555, "policy_revision": "25d7", "callers": 3}


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    devkit.write(tmp_path / "dev", "127.0.0.1:0", "ws://127.0.0.1:7880")
    return tmp_path / "dev"


def show(deployment: Path, *events: dict[str, Any], extra: str = "") -> None:
    """Sends events through the processor, the last of which it must take for itself."""
    (deployment / "server.yaml").write_text((deployment / "server.yaml").read_text() + extra)
    summary = StartSummary(load_settings(deployment / "server.yaml"))
    for event in events[:-1]:
        assert summary(None, "info", event) is event
    with pytest.raises(structlog.DropEvent):
        summary(None, "info", events[-1])


def test_it_says_where_the_server_listens_and_what_it_serves(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(deployment, SERVING, extra="metrics: 127.0.0.1:9464\n")
    rows = dict(line.split(None, 1) for line in capsys.readouterr().err.splitlines()[1:-1])
    assert rows == {
        "address": "127.0.0.1:7555",
        "policy": "25d7, 3 callers",
        "project": "default, ws://127.0.0.1:7880",
        "audit": str(deployment / "audit"),
        "probes": "http://127.0.0.1:9464/livez, /readyz, /metrics",
        "limits": "each process counts its own",
        "warnings": "none",
    }


def test_it_counts_the_warnings_before_it(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"event": "a CA", "level": "warning"}, {"event": "head", "level": "info"}]
    show(deployment, *lines, SERVING)
    assert "warnings  1, above" in capsys.readouterr().err


def test_without_a_trail_it_says_what_to_set(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = deployment / "server.yaml"
    settings.write_text(settings.read_text().replace("audit: {path: audit}\n", ""))
    show(deployment, SERVING)
    assert "set audit.path" in capsys.readouterr().err


def test_of_several_workers_it_gives_the_number(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(deployment, {"event": "supervising", "level": "info", "port": 7555, "workers": 2})
    shown = capsys.readouterr().err
    assert "workers   2" in shown
    assert "policy" not in shown


def test_only_the_first_start_is_shown(deployment: Path) -> None:
    summary = StartSummary(load_settings(deployment / "server.yaml"))
    with pytest.raises(structlog.DropEvent):
        summary(None, "info", SERVING)
    assert summary(None, "info", SERVING) is SERVING
