"""Parses JSON (RFC 8259) with the standard library, and finds the line of a place in it.

Guarantees: a duplicate member, NaN or Infinity, a number that Python can't hold, half of a character, deep nesting and
text after the document are errors. No message quotes the text.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined] # missing from typeshed
from typing import TYPE_CHECKING, Any, NoReturn

from livekit_auth_server.files.errors import TOO_DEEP, ConfigError, duplicate_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livekit_auth_server.files.errors import Location

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|([^\s"\[\]{},:]+)')  # a text, or a number or constant
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)"
)  # with half of a character as group 1


class _DuplicateError(ValueError):
    pass


class _NumberError(ValueError):
    def __init__(self, written: str) -> None:
        super().__init__("a number isn't finite, or has too many digits")
        self.written = written


def parse_json(path: Path, text: str) -> Any:  # noqa: ANN401 - JSON
    """The data; None for blank text. Raises ConfigError with the line."""
    if not text.strip():
        return None
    try:
        data = _DECODER.decode(text)
    except _DuplicateError:
        first, again = _duplicate(text)
        raise duplicate_key(path, _line_of(text, first), _line_of(text, again)) from None
    except _NumberError as error:
        place = next(word.start() for word in _WORD.finditer(text) if (word[1] or "").startswith(error.written))
        raise ConfigError(path, f"isn't valid JSON: {error}", _line_of(text, place)) from None
    except json.JSONDecodeError as error:
        raise ConfigError(path, f"isn't valid JSON ({error.msg})", error.lineno) from None
    except RecursionError:
        raise ConfigError(path, f"isn't valid JSON for this service: {TOO_DEEP}") from None
    for escape in _ESCAPE.finditer(text):
        if escape[1]:
            message = "isn't valid JSON: a text holds a surrogate, which is half of a character"
            raise ConfigError(path, message, _line_of(text, escape.start()))
    return data


def find_line(text: str, location: Location) -> int | None:
    """The line of a place in text that `parse_json` accepts, or of the nearest place around it; None for the whole."""
    line, node = None, _skip_space(text, 0)
    for part in location:
        found = next((child for child in _children(text, node) if child[0] == part), None)
        if found is None:
            break
        _, start, node = found
        line = _line_of(text, start)
    return line


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateError
    return members


def _refuse(written: str) -> NoReturn:
    raise _NumberError(written)


def _fraction(written: str) -> float:
    number = float(written)
    return number if abs(number) < float("inf") else _refuse(written)


def _integer(written: str) -> int:
    try:
        return int(written)
    except ValueError:  # more digits than Python converts
        _refuse(written)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_refuse, parse_float=_fraction, parse_int=_integer
)
_skip = json.JSONDecoder(parse_int=str, parse_float=str).scan_once  # type: ignore[attr-defined] # not in typeshed


def _children(text: str, node: int) -> Iterator[tuple[int | str, int, int]]:
    """The name or index of each child of a container, where the child starts, and where its value does."""
    closing = {"{": "}", "[": "]"}.get(text[node])
    if closing is None:
        return
    at, index = _skip_space(text, node + 1), 0
    while text[at] != closing:
        name, value = index, at
        if closing == "}":
            name, end = scanstring(text, at + 1)
            value = _skip_space(text, _skip_space(text, end) + 1)
        yield name, at, value
        at = _skip_space(text, _skip(text, value)[1])
        if text[at] == ",":
            at = _skip_space(text, at + 1)
        index += 1


def _duplicate(text: str) -> tuple[int, int]:
    """Where the first duplicate name of a member stands, and where it stands again. The text must have one."""
    seen: dict[int | str, int] = {}
    open_nodes = [(_children(text, _skip_space(text, 0)), seen)]
    while True:
        children, seen = open_nodes[-1]
        for name, start, value in children:
            if name in seen:
                return seen[name], start
            seen[name] = start
            open_nodes.append((_children(text, value), {}))
            break
        else:
            open_nodes.pop()


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
