"""Configuration files: every mistake is one line that says where it is and what to do."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from ruamel.yaml import YAML

from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.yaml_text import MOST_REPEATED
from support.examples import examples

AnyOrList = Annotated[  # as policy.policy_file has it
    Annotated[Literal["any"], Tag("[any]")] | Annotated[list[str], Tag("[list]")],
    Discriminator(lambda value: "[any]" if isinstance(value, str) else "[list]"),
]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    size: int = Field(default=1, ge=1, le=9)
    ratio: float = 1.0
    on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    path: Path | None = None
    names: AnyOrList = "any"
    list: int = 0


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    title: str
    part: Part = Part()
    parts: list[Part] = []
    by_name: Annotated[dict[str, Part], Field(min_length=0)] = {}
    some: Annotated[list[str], Field(min_length=1)] = ["x"]


def parse(content: str | bytes, name: str = "/f.yaml", *, secret: bool = False) -> Document:
    return Document.parse(Path(name), content if isinstance(content, bytes) else content.encode(), secret=secret)


def mistake(content: str | bytes, name: str = "/f.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        parse(content, name).validated(Form)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(name).lstrip(": ")


def test_a_file_is_its_model() -> None:
    document = parse("title: x\npart: {size: 2}\nby_name:\n  a: {on: true}\n").validated(Form)
    assert (document.title, document.part.size, document.by_name["a"].on) == ("x", 2, True)


MISTAKES = [
    ("", "is empty"),
    ("# nothing\n", "is empty"),
    ("title: x\ntitel: y\n", "2: titel: there is no such field; check its spelling"),
    ("titel: y\n", "1: titel: there is no such field; check its spelling (and 1 more)"),
    ("part: {size: 2}\n", "title: is required"),
    ("title: x\ntitle: y\n", "2: duplicate key, in line 1 too; remove one"),
    ("title: x\npart:\n  size: 1\n  size: 2\n", "4: duplicate key, in line 3 too; remove one"),
    ("title: x\npart:\n  sise: 1\n", "3: part.sise: there is no such field; check its spelling"),
    ("title: x\nparts:\n  - size: 1\n  - size: 0\n", "4: parts.1.size: should be at least 1"),
    ("title: x\npart: {size: 10}\n", "2: part.size: should be at most 9"),
    ("title: x\npart: {size: many}\n", "2: part.size: should be a whole number, without a unit"),
    ("title: x\npart: {size: 1.5}\n", "2: part.size: should be a whole number, without a unit"),
    ("title: x\npart: {size: [1]}\n", "2: part.size: should be a whole number, without a unit"),
    ("title: x\npart: {size: }\n", "2: part.size: should be a whole number, without a unit"),
    ("title: x\npart: {ratio: 5s}\n", "2: part.ratio: should be a number, without a unit"),
    ("title: x\npart: {on: perhaps}\n", "2: part.on: should be true or false"),
    ("title: x\npart: {on: 2}\n", "2: part.on: should be true or false"),
    ("title: x\npart: {mode: Fast}\n", "2: part.mode: should be 'fast' or 'slow'"),
    ("title: x\npart: {path: 5}\n", "2: part.path: should be the path of a file or folder"),
    ("title: 5\n", "1: title: should be text; put it in quotes"),
    ("title: 2027-01-01\n", "1: title: should be text; put it in quotes"),
    ("title:\n", "1: title: should be text; put it in quotes"),
    ("title: x\npart:\n", "2: part: should hold fields, written `name: value` and indented below it"),
    ("title: x\npart: fast\n", "2: part: should hold fields, written `name: value` and indented below it"),
    ("title: x\npart: [size]\n", "2: part: should hold fields, written `name: value` and indented below it"),
    ("title: x\nby_name: [a]\n", "2: by_name: should hold fields, written `name: value` and indented below it"),
    ("title: x\nby_name: {a: 1}\n", "2: by_name.a: should hold fields, written `name: value` and indented below"),
    ("title: x\nparts: fast\n", "2: parts: should be a list: [a, b], or one `- a` a line"),
    ("title: x\nsome: []\n", "2: some: needs at least one entry"),
    ("title: x\npart: {names: all}\n", "2: part.names: should be 'any'"),
    ("title: x\npart: {names: [1]}\n", "2: part.names.0: should be text; put it in quotes"),
    ("title: x\npart: {list: x}\n", "2: part.list: should be a whole number, without a unit"),
    ("title: x\nby_name: {'a[0]': {size: 0}}\n", "2: by_name.a[0].size: should be at least 1"),
    ("- title\n", "should hold fields, written `name: value` and indented below it"),
    ("title\n", "should hold fields, written `name: value` and indented below it"),
    ("title: x\nparts: &p [*p]\n", "2: parts.0: should hold fields"),
]
BROKEN_YAML = [
    ("title: a: b\n", "1: isn't valid YAML (mapping values are not allowed here); check the indentation, and put"),
    ("title: x\n part: y\n", "2: isn't valid YAML (mapping values are not allowed here)"),
    ("title: x\n\tpart: y\n", "2: isn't valid YAML (found character '\\t' that cannot start any token)"),
    (
        "title: [::1]:80\n",
        "1: isn't valid YAML (expected <block end>, but found '<scalar>'); check the indentation",
    ),
    ("title: {x\n", "2: isn't valid YAML (expected ',' or '}'"),
    ("title: *x\n", "1: isn't valid YAML (found undefined alias 'x')"),
    ("title: x\n---\ntitle: y\n", "2: isn't valid YAML (but found another document)"),
    ("title: &a x\npart: &a y\n", "isn't plain YAML (an anchor that is defined twice"),
    ("title: !!bool x\n", "isn't valid YAML"),
    ("title: 2027-99-99\n", "isn't valid YAML"),
    ("title: " + "9" * 5000 + "\n", "isn't valid YAML"),
    ("a: &a\n  <<: *a\n", "isn't valid YAML"),
    (b"title: \xff\n", "isn't UTF-8 text"),
    ("title: x".encode("utf-16"), "isn't UTF-8 text"),
    ("title: x\0\n", "isn't valid YAML"),
]


@pytest.mark.parametrize(("content", "text"), [*MISTAKES, *BROKEN_YAML])
def test_a_mistake_is_shown_with_its_line_and_what_to_do(content: str | bytes, text: str) -> None:
    assert mistake(content).startswith(text)


# YAML alone has duplicate keys (test_json_text has JSON's), dates and aliases here.
IN_BOTH = [
    content for content, text in MISTAKES if "duplicate" not in text and "2027" not in content and "&" not in content
]


@pytest.mark.parametrize("content", IN_BOTH)
def test_a_mistake_is_the_same_in_json(content: str) -> None:
    """JSON is YAML too, so the same text goes to both readers."""
    data = YAML(typ="safe", pure=True).load(content)
    text = "" if data is None else json.dumps(data, indent=1)
    assert mistake(text, "/f.json") == mistake(text)


def test_a_byte_order_mark_and_crlf_are_fine() -> None:
    assert parse("\ufefftitle: x\r\npart: {size: 2}\r\n").validated(Form).part.size == 2
    text = '\ufeff{"title": "x",\r\n"part": {"size": 2}}\r\n'
    assert parse(text, "/f.json").validated(Form).part.size == 2


def test_a_part_of_a_file_is_validated_with_its_own_place() -> None:
    file = parse("parts:\n  - size: 1\n  - size: 0\n")
    assert file.validated(Part, ("parts", 0)).size == 1
    with pytest.raises(ConfigError, match=r"^/f.yaml:3: parts\.1\.size: should be at least 1$"):
        file.validated(Part, ("parts", 1))


def test_a_secret_file_is_yaml_whatever_its_name() -> None:
    """The commands that change key files edit YAML."""
    assert parse("a: b\n", "/keys.json", secret=True).data == {"a": "b"}


def test_aliases_repeat_a_bounded_number_of_values() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigError, match=f"aliases repeat more than {MOST_REPEATED} values"):
        parse(bomb)
    assert len(parse("a: &a [x, y]\nb: [*a, *a]\n").data["b"]) == 2


@pytest.mark.parametrize("name", ["a\\nforged: line", "\\e[31mred", "\\u202eevil", "\\0", "\\x9b2J", "\\u2028"])
def test_a_name_in_a_file_cant_forge_a_line_or_drive_a_terminal(name: str) -> None:
    assert "there is no such field" in mistake(f'title: x\n"{name}": 1\n')


def test_a_path_cant_either() -> None:
    error = ConfigError(Path("/a\n\x1b[31mb"), "is\nwrong", 3)
    assert str(error) == "/a\\n\\x1b[31mb:3: is\\nwrong"
    assert (error.where, error.line, error.message) == ("/a\\n\\x1b[31mb", 3, "is\\nwrong")


def test_readable_text_of_any_language_stays_as_it_is() -> None:
    assert str(ConfigError("/füße/設定.yaml", "„ä“")) == "/füße/設定.yaml: „ä“"


def test_a_place_is_the_nearest_that_has_a_line() -> None:
    file = parse("a:\n  - b: 1\n  - c: 2\nd: [x,\n  y]\n")
    for location, line in [
        (("a",), 1),
        (("a", 0), 2),
        (("a", 1, "c"), 3),
        (("a", 1, "missing"), 3),
        (("a", 9), 1),
        (("d", 1), 5),
        (("missing",), None),
        ((), None),
        ((0,), None),
    ]:
        assert file.line(location) == line


def test_an_error_names_its_place() -> None:
    assert str(parse("a:\n  b: 1\n").error(("a", "b"), "is wrong")) == "/f.yaml:2: a.b: is wrong"
    assert str(parse("a:\n  b: 1\n").error((), "is wrong")) == "/f.yaml: is wrong"


def test_secret_files_keep_names_that_arent_fields_out_of_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("title: x\npart:\n  MARKER: 1\n", secret=True).validated(Form)
    assert str(caught.value) == "/f.yaml:3: part: there is no such field; check its spelling"


@pytest.mark.parametrize("content", ["MARKER: [", "a: *MARKER", "a: !!bool MARKER", "a: &MARKER x\nb: &MARKER y"])
def test_secret_files_keep_the_parsers_words_out_of_errors(content: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(content, secret=True)
    assert "MARKER" not in "".join(traceback.format_exception(caught.value)).replace(repr(content), "")


FRAGMENTS = [
    "title: x\n",
    "part:",
    "  size: 1\n",
    "parts:\n",
    "  - ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "*a",
    "&a ",
    "!!int ",
    "\t",
]


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*FRAGMENTS, ": ", "\n", "#", "|", ">", "---\n", "<<: "]), max_size=12).map("".join)
)
@examples(300)
def test_any_text_is_a_document_or_a_config_error_of_one_line(content: str) -> None:
    try:
        document = parse(content).validated(Form)
    except ConfigError as error:
        shown = str(error)
    else:
        shown = ""
        assert isinstance(document.title, str)
    assert shown.isprintable()
