"""The fast parser: what it reads is what ruamel.yaml reads, to the type, and anything else it leaves to ruamel.yaml."""

from __future__ import annotations

import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLWarning
from ruamel.yaml.scalarbool import ScalarBoolean

from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.yaml_fast import Unsure, find_line, parse_plain
from livekit_auth_server.files.yaml_text import MOST_REPEATED

REFUSED = "refused"


def by_ruamel(text: str) -> Any:
    """The data as ruamel.yaml reads it, or REFUSED."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)
            return exact(YAML(typ="rt").load(StringIO(text)))
    except Exception:  # noqa: BLE001 - whatever ruamel lets escape
        return REFUSED


def exact(value: Any) -> Any:
    """The value with the types that tell 1 from true and "1", and without ruamel's own."""
    if isinstance(value, dict):
        return ["map", [(exact(key), exact(item)) for key, item in value.items()]]
    if isinstance(value, list | CommentedSeq):
        return ["list", [exact(item) for item in value]]
    if isinstance(value, ScalarBoolean):
        return ["bool", bool(value)]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return [kind.__name__, kind(value)]
    return [type(value).__name__, str(value)]


def fast(text: str) -> Any:
    """The data as the fast parser reads it; None when it leaves it to ruamel.yaml."""
    try:
        return exact(parse_plain(text, 1000))
    except Unsure:
        return None


def same(text: str) -> bool:
    """Whether the fast parser had something to say; then it is what ruamel.yaml says."""
    read = fast(text)
    if read is not None:
        assert read == by_ruamel(text)
    return read is not None


# What YAML 1.1 and 1.2, or the two parsers, read differently, and what is near to it.
WORDS = [
    *("no", "No", "NO", "yes", "Yes", "on", "On", "off", "OFF", "y", "Y", "n", "N", "true", "True", "TRUE", "tRUE"),
    *("false", "False", "~", "null", "Null", "NULL", "nUll", "", "0", "1", "-1", "+1", "01", "0777", "0o17", "0b1"),
    *(
        "0x1F",
        "1_000",
        "1,000",
        "12:30:45",
        "190:20:30",
        "1:1",
        "1e3",
        "1E3",
        "1.",
        ".5",
        "1.5",
        "-.inf",
        ".nan",
        ".NaN",
    ),
    *("2027-01-01", "2027-01-01T00:00:00Z", "2027-1-1", "<<", "=", "-", "--", "a-", "-a", "- a", "a b", "a  b", "a:b"),
    *("a: b", "::", "[::1]", "a#b", "a #b", "#a", "spiffe://example.org/web", "dns:a.example", "a,b", "[a,b]", "{a:b}"),
    *(
        "{a: b}",
        '{"a":b}',
        "{a}",
        "[a: b]",
        "?",
        "? a",
        "!a",
        "!!str 1",
        "!!bool true",
        "! x",
        "&a",
        "*a",
        "&a b",
        "@a",
    ),
    *(
        "`a",
        "%a",
        "'a'",
        "'it''s'",
        '"a"',
        '"a\\nb"',
        '"\\x41"',
        '"\\ud83d"',
        '"\\/"',
        '"\\N"',
        "|",
        ">",
        "|-\n  a",
        ">\n  a",
    ),
    *(
        "ä",
        "\u4e2d",
        "\U0001f600",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u00a0",
        "\t",
        "a\tb",
        "99999999999999999999",
        "1" * 18,
    ),
    *(
        "10m",
        "1h30m",
        "20/s",
        "consult-",
        "user.7",
        "...",
        "---",
        "\\",
        "a\\",
        "x=y",
        "a+b",
        "a@b",
        "a~",
        "a/b",
        "\u0661",
    ),
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "form", ["{}", "a: {}", "- {}", "[{}]", "{{a: {}}}", "{}: a", "{{{}: a}}", "a: [x, {}, y]", "a: &x {}\nb: *x"]
)
def test_a_word_means_what_it_means_to_ruamel(word: str, form: str) -> None:
    same(form.format(word) + "\n")


@pytest.mark.parametrize(
    ("word", "value"),
    [("no", "no"), ("on", "on"), ("y", "y"), ("true", True), ("False", False), ("~", None), ("", None), ("7", 7)],
)
def test_words_are_those_of_yaml_1_2(word: str, value: object) -> None:
    read = parse_plain(f"a: {word}\n", 0)["a"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        *("a: 0777", "a: 1_000", "a: 12:30:45", "a: 2027-01-01", "a: 1.5", "a: 0x10", "a: +1", "a: .inf", "a: <<"),
        *("a: !!str 1", "!x {}", "a: ! b", "%YAML 1.1\n---\na: no", "a: 1\n---\nb: 2", "a: &x 1\nb: &x 2", "a: *x"),
        *(
            "a: {<<: {b: 1}}",
            "a: |\n  x\n",
            "a: >\n  x\n",
            "a: b\n  c\n",
            'a: "b\n  c"\n',
            "a: 1\na: 1",
            "1: a\ntrue: b",
        ),
        *("{a: 1}: b", "? [a]\n: b", "&a [*a]", "a: &a\n  b: *a\n", "a:\tb", "a: \u2028", "a: \x85", "a: [", "*a : b"),
        "[" * 40 + "]" * 40,
    ],
)
def test_what_the_parsers_may_read_differently_is_ruamels(text: str) -> None:
    assert fast(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1, {b: true}]\nc: *x\n",
        "---\n# a comment\na: b # another\nc: [d, # more\n  e]\n",
        "a:\n- b\n- - c\n  - d: e\n    f: {}\n",
        "a: b\r\nc:\r\n  - 'd'\r\n",
        'a: ["1", \'true\', "it\\u00e4", ""]\n',
    ],
)
def test_what_policies_are_written_in_is_read_fast(text: str) -> None:
    assert same(text)


PIECES = [
    *(
        "a",
        "b: ",
        "c:\n",
        "\n",
        "  ",
        "- ",
        "? ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        ",",
        ", ",
        "#",
        " # x\n",
        "'",
        '"',
        "|",
        ">",
        "&x ",
    ),
    *(
        "*x",
        "!t ",
        "<<: ",
        "---\n",
        "...\n",
        "true",
        "no",
        "1",
        "1.0",
        "~",
        "\t",
        "\r\n",
        "\r",
        "\\",
        "%",
        "@",
        "\u2028",
        "\x85",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=40))
@example("{a,#b\n}")
@example("[a,#b\n c]")
@example("a: 'b'#c\n")
@example("- [a]b\n")
@example('{"a":b, c}')
@example("[a, b,]")
@example("[a: b]")
@settings(max_examples=3000, deadline=None)
def test_any_text_is_read_as_ruamel_reads_it_or_left_to_it(text: str) -> None:
    same(text)


scalars = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.sampled_from(WORDS) | st.text(max_size=6)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=16,
)


@given(documents, st.booleans(), st.sampled_from([1000, 20]))
@settings(max_examples=500, deadline=None)
def test_written_documents_come_back_as_ruamel_reads_them(document: object, flow: bool, width: int) -> None:  # noqa: FBT001
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = flow, width, True
    stream = StringIO()
    yaml.dump(document, stream)
    same(stream.getvalue())


# Aliases


def bomb(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_aliases_repeat_a_bounded_number_of_values() -> None:
    assert fast(bomb(2)) == by_ruamel(bomb(2))
    assert fast(bomb(5)) is None
    with pytest.raises(ConfigError, match=f"aliases repeat more than {MOST_REPEATED} values"):
        Document.parse(Path("f.yaml"), bomb(9).encode())
    with pytest.raises(ConfigError, match="aliases repeat more than"):
        Document.parse(Path("f.yaml"), ("tagged: !x 1\n" + bomb(9)).encode())


def test_as_many_as_the_bound_are_fine() -> None:
    text = "a: &a [" + "x, " * 99 + "]\nb: [" + "*a, " * 100 + "]\n"  # a list of 99 is 100 values
    assert len(parse_plain(text, 10_000)["b"]) == 100
    with pytest.raises(Unsure):
        parse_plain(text, 9_999)


# Lines


@given(documents)
@settings(max_examples=200, deadline=None)
def test_a_place_has_the_line_that_ruamel_gives_it(document: object) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    stream = StringIO()
    yaml.dump({"top": document}, stream)
    text = stream.getvalue()
    if fast(text) is None:
        return
    ruamel = Document(Path("f"), text.encode(), YAML(typ="rt").load(StringIO(text)))
    for location in places(ruamel.data):
        assert find_line(text, location) == ruamel.line(location)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in children for place in places(value, (*path, key)))]


# Items that are taken as they come


def test_items_of_a_field_are_taken_as_they_come() -> None:
    seen: list[tuple[str, Any]] = []

    def take(name: str, item: Any) -> str:
        seen.append((name, item))
        return f"taken {len(seen)}"

    text = "a: [{b: 1}, [2], x]\nc: {d: [{e: 3}]}\nf:\n- g: [{h: 4}]\n"
    assert parse_plain(text, 0, take) == {"a": ["taken 1", "taken 2", "x"], "c": {"d": [{"e": 3}]}, "f": ["taken 3"]}
    assert seen == [("a", {"b": 1}), ("a", [2]), ("f", {"g": [{"h": 4}]})]


@pytest.mark.parametrize(
    "text", ["|#", "|", ">", "|-\n  a", ">\n  a", "|+\n  a", "a\n  b", '"a\n  b"', "'a\n  b'", '"a\\\n  b"', "? >#>"]
)
def test_a_text_over_several_lines_is_ruamels_also_when_the_same_text_stood_on_one_before(text: str) -> None:
    before = """p: a b\nq: ["", "a", "a\\n", "ab", "a b", 'a b']\n"""
    assert same(before)
    for there in (f"r: {text}\n", f"r:\n- {text}\n", f"r: {text}", f"? {text}\n: 1\n"):
        assert fast(before + there) is None, there


def test_equal_texts_are_one_object() -> None:
    data = parse_plain("a: [some-text, 'some-text2', some-text, 'some-text2']\n", 0)["a"]
    assert data[0] is data[2]
    assert data[1] is data[3]
