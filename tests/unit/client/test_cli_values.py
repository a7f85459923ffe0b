"""How the command line parses its values and shows the server's responses."""

import subprocess
import sys
from datetime import timedelta

import pytest
import typer

from livekit_auth._cli.options import attributes, duration, read_line
from livekit_auth._cli.output import _text
from livekit_auth._messages.errors import printable


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800), ("0s", 0)],
)
def test_duration_is_parsed(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "0", "1h30", "5x", "-5m", "m", "1.5h", "5 m", "30m1h", "9" * 30, "\u0665m"])
def test_invalid_duration_is_refused(text):
    with pytest.raises(typer.BadParameter):
        duration(text)


@pytest.mark.parametrize("text", ["0", "10", "600"])
def test_number_without_a_unit_is_refused(text):
    with pytest.raises(typer.BadParameter, match=f"write {text}s or {text}m"):
        duration(text)


def test_attribute_is_split_at_the_first_equals_sign():
    assert attributes(["a=b", "c=d=e", "f="]) == {"a": "b", "c": "d=e", "f": ""}


def test_attribute_without_a_value_is_refused():
    with pytest.raises(typer.BadParameter, match="key=value"):
        attributes(["a"])


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_only_a_line_ending_is_stripped(tmp_path, ending):
    path = tmp_path / "token"
    path.write_bytes(b" a.b.c " + ending)
    assert read_line(str(path), "--token-file") == " a.b.c "


def test_only_the_last_line_ending_is_stripped(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"a\n\n")
    assert read_line(str(path), "--token-file") == "a\n"


def test_control_characters_are_escaped():
    assert printable("a\x1b[31mb\u202ec é") == "a\\x1b[31mb\\u202ec é"


def test_records_are_shown_one_per_line_without_empty_fields():
    entries = [
        {"name": "a", "rooms": ["any", "exact:x"], "powers": (), "max_ttl": timedelta(hours=1)},
        {"name": "b\x1b"},
    ]
    assert _text(entries) == "name: a; rooms: any, exact:x; max_ttl: 3600 s\nname: b\\x1b"


def test_argument_that_is_not_utf8_is_a_usage_error():
    command = [sys.executable.encode(), b"-m", b"livekit_auth.cli", b"token", b"--role", b"\xff"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == "livekit-auth: an argument isn't UTF-8\n"
