"""Where spans may go and what may go with them: what is unusual is refused, and no header shows in an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from livekit_auth_server.config.tracing import TracingSettings, read_headers
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HTTPS = "https://collector.example.org/v1/traces"


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": "http://collector:4318/v1/traces"},
        {"endpoint": "http://[::1]:4318/v1/traces", "headers_file": "h"},
        {"endpoint": "http://localhost:4318/v1/traces", "headers_file": "h"},
        {"endpoint": HTTPS, "headers_file": "h", "ca": "ca.pem", "ratio": 0.01},
    ],
)
def test_a_collector_is_named_by_its_whole_url(settings: dict[str, Any]) -> None:
    assert TracingSettings(**settings).endpoint == settings["endpoint"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Field required"),
        ({"endpoint": "collector:4318"}, "the whole url"),
        ({"endpoint": "http://collector:4318"}, "the whole url"),
        ({"endpoint": "http://collector:4318/"}, "the whole url"),
        ({"endpoint": "grpc://collector:4317/v1/traces"}, "the whole url"),
        ({"endpoint": "file:///etc/passwd"}, "the whole url"),
        ({"endpoint": f"{HTTPS}?key=MARKER"}, "the whole url"),
        ({"endpoint": f"{HTTPS}\n"}, "the whole url"),
        ({"endpoint": "http://collector:99999/v1/traces"}, "the whole url"),
        ({"endpoint": "https://user:MARKER@collector/v1/traces"}, "headers_file"),
        ({"endpoint": 7}, "the whole url"),
        ({"endpoint": HTTPS, "ratio": 1.1}, "less than or equal to 1"),
        ({"endpoint": HTTPS, "ratio": float("nan")}, "finite"),
        ({"endpoint": HTTPS, "headers": {"authorization": "MARKER"}}, "not permitted"),
        ({"endpoint": "http://collector:4318/v1/traces", "headers_file": "h"}, "in clear"),
        ({"endpoint": "http://collector:4318/v1/traces", "ca": "ca.pem"}, "TLS"),
    ],
)
def test_what_is_unusual_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TracingSettings(**settings)
    assert words in str(caught.value)
    assert "MARKER" not in str(caught.value)


def headers(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "headers"
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(content)
    return path


def test_headers_are_lines_of_a_name_and_a_value(tmp_path: Path) -> None:
    path = headers(tmp_path, "Authorization: Basic abc=\n\nX-Scope-OrgID:tenant 1  \r\n")
    assert read_headers(path) == {"authorization": "Basic abc=", "x-scope-orgid": "tenant 1"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no headers"),
        ("MARKER", "headers:1: isn't a header"),
        ("a: b\nx_y: MARKER", "headers:2: isn't a header"),
        ("a: MARKER\x07", "isn't a header"),
        ("a:", "isn't a header"),
        ("a: MARKER é", "isn't ASCII"),
        ("a: MARKER\nA: MARKER", "headers:2: duplicate header"),
        ("Host: MARKER", "the exporter sets itself"),
        ("content-length: 5", "the exporter sets itself"),
    ],
)
def test_what_is_no_header_is_refused_without_showing_it(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_headers(headers(tmp_path, content))
    assert words in str(caught.value)
    assert "MARKER" not in str(caught.value)


def test_headers_that_others_can_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be read by others"):
        read_headers(headers(tmp_path, "a: b", 0o644))
