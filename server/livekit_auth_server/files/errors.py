"""Mistakes in files and settings: one line that says where, what and what to do, without what a secret file holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError

Location = tuple[int | str, ...]
"""A place in a document: the names and indexes that lead to it."""

_UNION_BRANCH = re.compile(r"\[(?:any|list|key)\]\Z")  # what files.field_types and pydantic put into a location
_LONGEST_NAME = 31  # characters; a secret has at least 32 bytes
FIELD_UNKNOWN = "extra_forbidden"
"""pydantic's name for a field that the model doesn't have."""

MAX_DEPTH = 200
"""How deep a document may nest: deeper than anything that is meant."""
TOO_DEEP = "it nests too deeply"

# pydantic's kinds of mistakes whose own words speak of Python.
_WORDS = {
    FIELD_UNKNOWN: "there is no such field; check its spelling",
    "missing": "is required",
    **dict.fromkeys(("model_type", "dict_type"), "should hold fields, written `name: value` and indented below it"),
    "list_type": "should be a list: [a, b], or one `- a` a line",
    "string_type": "should be text; put it in quotes",
    "path_type": "should be the path of a file or folder",
    **dict.fromkeys(("bool_type", "bool_parsing"), "should be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "should be a whole number, without a unit"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "should be a number, without a unit"),
    "too_short": "needs at least one entry",
    "recursion_loop": "contains itself",
}


class ConfigError(Exception):
    """A file or setting that can't be used: where, why and what to do, in one line without a secret."""

    def __init__(self, where: Path | str, message: str, line: int | None = None) -> None:
        self.where, self.line, self.message = printable(str(where)), line, printable(message)
        place = f"{self.where}:{line}" if line else self.where
        super().__init__(f"{place}: {self.message}")


def duplicate_key(path: Path, first: int | None, again: int | None) -> ConfigError:
    """The error for a key that a mapping has twice: the line of the first, where known, and of the second."""
    also = f", in line {first} too" if first else ""
    return ConfigError(path, f"duplicate key{also}; remove one", again)


def placed(location: Location, message: str) -> str:
    """The message after the place; a long name is left out of it, since a secret may stand where a name belongs."""
    name = ".".join(str(part) if len(str(part)) <= _LONGEST_NAME else "…" for part in location)
    return f"{name}: {message}" if name else message


def first_mistake(error: ValidationError) -> tuple[str, Location, str]:
    """The kind, place and words of the mistake to show: a misspelt field before what is missing because of it."""
    mistakes = error.errors(include_input=False, include_url=False, include_context=False)
    first = next((mistake for mistake in mistakes if mistake["type"] == FIELD_UNKNOWN), mistakes[0])
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return first["type"], shown(first["loc"]), readable(first["type"], first["msg"]) + more


def shown(location: Location) -> Location:
    """A location without the names that pydantic gives to the branches of a union."""
    return tuple(part for part in location if isinstance(part, int) or not _UNION_BRANCH.match(part))


def readable(kind: str, message: str) -> str:
    """A mistake in words that say what to do."""
    if (words := _WORDS.get(kind)) is not None:
        return words
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    return message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def printable(text: str) -> str:
    """The text in one line and without what a terminal would act on: a file can hold any characters in its names."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
