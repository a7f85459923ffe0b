"""JSON files: what the standard library's parser lets through is an error with its line, without the text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from support.examples import examples

NUMBER = "isn't valid JSON: a number isn't finite, or has too many digits"
HALF = "isn't valid JSON: a text holds a surrogate, which is half of a character"
DEEP = "isn't valid JSON for this service: it nests too deeply"


def parse(text: str) -> Document:
    return Document.parse(Path("f.json"), text.encode())


def mistake(text: str) -> tuple[int | None, str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.line, caught.value.message


@pytest.mark.parametrize(
    ("text", "first", "again"),
    [
        ('{"a": 1, "a": 1}', 1, 1),
        ('{"a": 1,\n"b": {},\n"a": 2}', 1, 3),
        ('{"a": 1,\n"\\u0061": 2}', 1, 2),
        ('[{"a": {"b": 1}},\n{"a": {"b": 1,\n"b": 2}}]', 2, 3),
        ('{"a": "{\\"b\\": [1, }",\n"b": [[],\n{"c": 1,\n"d": [],\n"c": 1}]}', 3, 5),
        ('{"x": {"a": 1,\n"a": 2},\n"a": [', 1, 2),
    ],
)
def test_a_duplicate_member_is_refused_with_both_lines(text: str, first: int, again: int) -> None:
    assert mistake(text) == (again, f"duplicate key, in line {first} too; remove one")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "-" + "9" * 5000])
def test_a_number_that_isnt_finite_is_refused(number: str) -> None:
    assert mistake(f'["NaN", {{"Infinity": 5}},\n1e2, -1, {number}]') == (2, NUMBER)


@pytest.mark.parametrize("text", ["\\ud800", "\\uDFFF", "\\ud83d x", "\\ude00\\ud83d", "\\\\\\ud800"])
def test_half_of_a_character_is_refused(text: str) -> None:
    assert mistake(f'["\\\\ud800", "\\ud83d\\ude00",\n"{text}"]') == (2, HALF)


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\\\ud800", '\\"', "\\u00e4", "\U0001f600"])
def test_whole_characters_are_read(text: str) -> None:
    assert parse(f'["{text}"]').data == json.loads(f'["{text}"]')


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a": [' * 100_000 + "]}" * 100_000, "[" * 1_000_000])
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    started = time.thread_time()
    assert mistake(text) == (None, DEEP)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1}\nx', 2),
        ("{}\n{}", 2),
        ('{"a": 1,\n}', 2),
        ("[1,\n]", 2),
        ('{"a"\n1}', 2),
        ("{a: 1}", 1),
        ("{'a': 1}", 1),
        ('"a\tb"', 1),
        ('["\\x41"]', 1),
        ("[01]", 1),
        ("[True]", 1),
        ("[1 /* one */]", 1),
        ("\n# nothing", 2),
        ('{"MARKER', 1),
        ("\ufeff\ufeff{}", 1),
    ],
)
def test_broken_json_has_its_line_and_shows_no_text(text: str, line: int) -> None:
    found, message = mistake(text)
    assert message.startswith("isn't valid JSON (")
    assert "MARKER" not in message
    assert found in (line, line - 1)  # of a comma too many, Python names the comma or what is after it


def test_other_encodings_are_refused() -> None:
    with pytest.raises(ConfigError, match="isn't UTF-8 text"):
        Document.parse(Path("f.json"), '{"a": 1}'.encode("utf-16"))


PLACES: list[tuple[tuple[int | str, ...], int | None]] = [
    (("a",), 1),
    (("a", 0), 2),
    (("a", 1), 3),
    (("a", 1, "d"), 4),
    (("a", 1, "missing"), 3),
    (("a", 9), 1),
    (("a", "b"), 1),
    (("e",), 5),
    (("e", 0), 5),
    (("missing",), None),
    ((), None),
    ((0,), None),
]


@pytest.mark.parametrize(("place", "line"), PLACES)
def test_a_place_has_its_line(place: tuple[int | str, ...], line: int | None) -> None:
    assert parse('{"a":\n[{"b": 1},\n{"c": "]}",\n"d": 2}],\n"e": null}').line(place) == line


texts = st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.sampled_from([None, 0, 3]), st.booleans())
@settings(deadline=None)
def test_what_is_written_is_what_is_read(value: Any, indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001
    assert parse(json.dumps(value, indent=indent, ensure_ascii=ascii_only)).data == value


PIECES = ['"a"', "1", "{", "}", "[", "]", ":", ",", "NaN", "\n", " ", '"\\ud800"', "true", "x"]


@given(st.lists(st.sampled_from(PIECES)))
@examples(500)
def test_any_text_is_data_or_a_config_error_of_one_line(pieces: list[str]) -> None:
    try:
        parse("".join(pieces))
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is fine
