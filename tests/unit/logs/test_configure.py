"""Log lines: one JSON object each, never lost, never forged, and no secret from a stack."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from livekit_auth_server.core.keys import ApiKey, Secret
from livekit_auth_server.logs import configure as logs


class Stderr(io.TextIOWrapper):
    """A standard error that is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding="utf-8", errors="backslashreplace", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        return self.raw_bytes.getvalue().decode()


Configure = Callable[..., tuple[Any, Stderr]]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configures logging on a fake standard error; gives a logger and the stream."""

    def start(*arguments: Any, terminal: bool = False) -> tuple[Any, Stderr]:
        stream = Stderr(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(*arguments)
        return structlog.get_logger("test"), stream

    yield start
    structlog.reset_defaults()


def test_a_line_is_one_json_object(configure: Configure) -> None:
    log, stream = configure("json")
    log.info("serving", port=7443, projects=["default"])
    log.error("fault", detail="a\nb")
    first, second = map(json.loads, stream.text.splitlines())
    assert (first["event"], first["level"], first["port"], first["projects"]) == ("serving", "info", 7443, ["default"])
    assert first["timestamp"].endswith("Z")
    assert (second["level"], second["detail"]) == ("error", "a\nb")


@pytest.mark.parametrize(("terminal", "is_json"), [(True, False), (False, True)])
def test_auto_is_json_unless_on_a_terminal(configure: Configure, terminal: bool, is_json: bool) -> None:  # noqa: FBT001
    log, stream = configure("auto", terminal=terminal)
    log.info("serving", port=7443)
    assert stream.text.startswith("{") is is_json
    assert "7443" in stream.text


@pytest.mark.parametrize("format_", ["json", "console"])
def test_the_format_asked_for_wins_over_the_terminal(configure: Configure, format_: str) -> None:
    for terminal in (True, False):
        log, stream = configure(format_, terminal=terminal)
        log.info("serving")
        assert stream.text.startswith("{") is (format_ == "json")


def test_only_a_terminal_gets_colours(configure: Configure) -> None:
    log, stream = configure("console", terminal=False)
    log.info("serving", port=7443)
    assert "\x1b" not in stream.text
    log, stream = configure("console", terminal=True)
    log.info("serving", port=7443)
    assert "\x1b" in stream.text


@pytest.mark.parametrize(
    ("format_", "terminal", "runs"), [("auto", True, True), ("auto", False, False), ("json", True, False)]
)
def test_processors_for_a_terminal_run_on_a_terminal_only(
    configure: Configure,
    format_: str,
    terminal: bool,  # noqa: FBT001
    runs: bool,  # noqa: FBT001
) -> None:
    def marked(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, "marked": 1}

    log, stream = configure(format_, "info", None, None, [marked], terminal=terminal)
    log.info("serving")
    assert ("marked" in stream.text) is runs


def test_lines_below_the_level_are_left_out(configure: Configure) -> None:
    log, stream = configure("json", "warning")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [json.loads(line)["event"] for line in stream.text.splitlines()] == ["c", "d"]


def fail(where: str) -> None:
    """Raises with a secret in local variables of three frames."""
    secret_text, key = f"MARKER-{where}", ApiKey("APIone", Secret(b"MARKER" * 6))
    if where == "deep":
        fail("middle")
    if where == "middle":
        fail("outer")
    raise ValueError(f"boom {len(secret_text)} {key}")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_shows_no_local_variable(configure: Configure, format_: str) -> None:
    log, stream = configure(format_)
    try:
        fail("deep")
    except ValueError:
        log.exception("unexpected fault", method="IssueToken")
    assert "ValueError: boom" in stream.text
    assert stream.text.count("in fail") == 3
    assert "MARKER-deep" not in stream.text
    assert "MARKERMARKER" not in stream.text
    if format_ == "json":
        (line,) = stream.text.splitlines()
        assert "Traceback" in json.loads(line)["exception"]


ODD: dict[str, Any] = {
    "a key that isn't text": {1: 2},
    "a number over 64 bits": 1 << 80,
    "half a character": "\ud800",
    "bytes": b"\xff",
    "an object": object(),
    "not a number": float("nan"),
    "a set": {1},
    "an exception": ValueError("x"),
    "a secret": Secret(b"MARKER" * 6),
    "deep": [[[[[[]]]]]],
}


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("kind", ODD)
def test_a_line_is_never_lost_for_what_it_holds(configure: Configure, kind: str, format_: str) -> None:
    """A log call that raises would take down the answer that it is about."""
    log, stream = configure(format_)
    log.info("before", value=1)
    log.info("odd", value=ODD[kind], other="kept")
    log.info("after", value=2)
    assert len(stream.text.splitlines()) == 3
    assert "MARKER" not in stream.text
    if format_ == "json":
        line = json.loads(stream.text.splitlines()[1])
        assert "odd" in line["event"]
        assert "kept" in line["other"]


@pytest.mark.parametrize(
    "text", ["a\nforged line", "\x1b[31mred", "\r\n", "\x9b2J", "\u202eevil", "\u2028", "\0", "\x7f"]
)
@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_text_can_forge_a_line_or_drive_a_terminal(configure: Configure, format_: str, text: str) -> None:
    log, stream = configure(format_)
    log.info(text, detail=text, reason=f"x {text}")
    if format_ == "json":
        (line,) = stream.text.split("\n")[:-1]
        assert json.loads(line)["detail"] == text
    else:
        assert stream.text.endswith("\n")
        assert stream.text[:-1].isprintable()


def test_readable_text_stays_as_it_is_on_a_console(configure: Configure) -> None:
    log, stream = configure("console")
    log.info("größe", name="Ünïcode 设定")
    assert "größe" in stream.text
    assert "Ünïcode 设定" in stream.text


def test_lines_of_one_of_several_workers_carry_its_number(configure: Configure) -> None:
    log, stream = configure("json", "info", None, 2)
    log.info("serving")
    assert json.loads(stream.text)["worker"] == 2


def test_a_single_process_has_no_number(configure: Configure) -> None:
    log, stream = configure("json")
    log.info("serving")
    assert "worker" not in json.loads(stream.text)


@pytest.mark.parametrize(
    ("arguments", "terminal", "shown"),
    [
        (("auto", "info"), True, False),
        (("auto", "debug"), True, True),
        (("auto", "info"), False, True),
        (("console", "info"), False, True),
        (("json", "info"), True, True),
    ],
)
def test_heads_of_the_trail_are_logged_but_not_to_a_person(
    configure: Configure, arguments: tuple[str, str], *, terminal: bool, shown: bool
) -> None:
    log, stream = configure(*arguments, terminal=terminal)
    log.info("audit head", head="c:1:aa")
    log.info("serving")
    assert ("audit head" in stream.text, "serving" in stream.text) == (shown, True)
