"""YAML files with errors that have lines. Duplicate keys are refused; what a secret file holds never shows.

A parser's own message can quote the text around a mistake, which in a file of keys is a secret: only positions and the
names of fields are taken from it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from livekit_auth_server.files.yaml_fast import Unsure, find_line, is_too_deep, parse_plain

M = TypeVar("M", bound=BaseModel)
Location = tuple[int | str, ...]

_UNION_BRANCH = re.compile(r"\[(?:any|list|key)\]\Z")  # what files.field_types and pydantic put into a location
_FIELD_NAME = re.compile(r"[a-z_]{1,40}\Z")  # any other name may be a secret in the wrong place
_QUOTED = re.compile(r"'[A-Za-z0-9+/=_-]{9,}'")  # a word that is long enough to be a part of a secret
_LONGEST_NAME = 31  # characters; a secret has at least 32 bytes
MOST_REPEATED = 1_000_000  # values that aliases may repeat: a few lines of them could make any number
_MAX_BYTES = 32 * 1024 * 1024
_UNKNOWN_FIELD = "extra_forbidden"
_NOT_PLAIN = "isn't a plain file"
_DESCRIPTORS = Path("/dev/fd")

# pydantic's kinds of mistakes whose own words speak of Python.
_WORDS = {
    _UNKNOWN_FIELD: "there is no such field; check its spelling",
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


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed file: its path, its bytes and its data. `secret` hides text in errors."""

    path: Path
    content: bytes
    data: Any
    secret: bool = False

    @classmethod
    def read(cls, path: Path, *, secret: bool = False) -> YamlFile:
        """Reads and parses the file. `secret` keeps the parser's words out of errors. Raises ConfigError."""
        content = read_bytes(path)
        return cls.parse(path, content, secret=secret)

    @classmethod
    def parse(cls, path: Path, content: bytes, *, secret: bool = False) -> YamlFile:
        """Parses content that came from `path`. Raises ConfigError."""
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(path, "isn't UTF-8 text") from None
        with suppress(Unsure):
            return cls(path, content, parse_plain(text, MOST_REPEATED), secret)
        data = _by_ruamel(path, text, secret=secret)
        if "*" in text and _repeats(data) > MOST_REPEATED:
            raise ConfigError(path, f"aliases repeat more than {MOST_REPEATED} values; write less by aliases")
        return cls(path, content, data, secret)

    def error(self, location: Location, message: str) -> ConfigError:
        """An error at a place in the data."""
        return ConfigError(self.path, _placed(location, message), self.line(location))

    def line(self, location: Location) -> int | None:
        """The line of a place in the data, or of the nearest thing around it that has one."""
        if self.data is None:
            return None
        if not hasattr(self.data, "lc"):
            return find_line(self.content.decode(), location)
        node, line = self.data, None
        for part in location:
            try:
                position = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
                line, node = position[0] + 1, node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line

    def validated(self, model: type[M]) -> M:
        """The data as this model. Raises ConfigError with the first mistake and the number of further ones."""
        if self.data is None:
            raise ConfigError(self.path, "is empty")
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise self.first_error(error) from None

    def first_error(self, error: ValidationError) -> ConfigError:
        """A validation error as a ConfigError; the input stays out of it."""
        kind, location, message = first_mistake(error)
        line = self.line(location)
        if kind == _UNKNOWN_FIELD and (self.secret or not _FIELD_NAME.match(str(location[-1]))):
            location = location[:-1]  # the name may be a secret in the wrong place
        return ConfigError(self.path, _placed(location, message), line)


def _by_ruamel(path: Path, text: str, *, secret: bool) -> Any:  # noqa: ANN401 - YAML
    """The data, which remembers its lines. Raises ConfigError."""
    if is_too_deep(text):
        raise ConfigError(path, "isn't valid YAML for this service: it nests too deeply")
    try:
        with warnings.catch_warnings():  # a warning would print the text that it is about
            warnings.simplefilter("error", YAMLWarning)
            return YAML(typ="rt").load(StringIO(text))
    except DuplicateKeyError as error:
        first = _first_line(text, error)
        also = f", in line {first} too" if first else ""
        raise ConfigError(path, f"duplicate key{also}; remove one", _line(error)) from None
    except MarkedYAMLError as error:
        problem = "" if secret else f" ({_QUOTED.sub('…', str(error.problem))})"
        message = f"isn't valid YAML{problem}; check the indentation, and put text with special characters in quotes"
        raise ConfigError(path, message, _line(error)) from None
    except YAMLWarning:
        message = "isn't plain YAML (an anchor that is defined twice, or a number in YAML 1.1's form)"
        raise ConfigError(path, message) from None
    except Exception:  # noqa: BLE001 - ruamel lets KeyError and others escape, with the text that they are about
        raise ConfigError(path, "isn't valid YAML") from None


def _first_line(text: str, error: DuplicateKeyError) -> int | None:
    """The line of the key that the duplicate repeats, from 1."""

    def look(node: Node) -> int | None:
        below: list[Node] = node.value if isinstance(node, SequenceNode) else []
        if isinstance(node, MappingNode):
            for index, (key, value) in enumerate(node.value):
                if key.start_mark.index == error.problem_mark.index:
                    same = (other for other, _ in node.value[:index] if other.value == key.value)
                    return next((other.start_mark.line + 1 for other in same), None)
                below.append(value)
        return next((line for child in below if (line := look(child)) is not None), None)

    try:
        return look(YAML(typ="rt").compose(StringIO(text)))
    except Exception:  # noqa: BLE001 - such as of a mapping that holds itself; the duplicate's own line is known
        return None


def _repeats(data: Any) -> int:  # noqa: ANN401 - YAML
    """How many values stand in the data again by aliases; of data that holds itself, at least one of them."""
    sizes: dict[int, int] = {}
    repeated = 0

    def size(value: Any) -> int:  # noqa: ANN401
        nonlocal repeated
        if not isinstance(value, (dict, list)):
            return 1
        if (known := sizes.get(id(value))) is not None:
            repeated += known
            return known
        sizes[id(value)] = 1
        children = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(map(size, children))
        return sizes[id(value)]

    size(data)
    return repeated


def _placed(location: Location, message: str) -> str:
    """The message after the place; a long name is left out of it, since a secret may stand where a name belongs."""
    name = ".".join(str(part) if len(str(part)) <= _LONGEST_NAME else "…" for part in location)
    return f"{name}: {message}" if name else message


def first_mistake(error: ValidationError) -> tuple[str, Location, str]:
    """The kind, place and words of the mistake to show: a misspelt field before what is missing because of it."""
    mistakes = error.errors(include_input=False, include_url=False, include_context=False)
    first = next((mistake for mistake in mistakes if mistake["type"] == _UNKNOWN_FIELD), mistakes[0])
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


def _line(error: MarkedYAMLError) -> int | None:
    """The line of a parser's error, counted from 1."""
    return error.problem_mark.line + 1 if error.problem_mark else None


def printable(text: str) -> str:
    """The text in one line and without what a terminal would act on: a file can hold any characters in its names."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises ConfigError."""
    return _read(path, private=False)


def read_private(path: Path) -> bytes:
    """The bytes of a file that holds a secret. Raises ConfigError when others than owner and group can read it."""
    return _read(path, private=True)


def files_in(folder: Path) -> list[Path]:
    """What a mounted folder holds, by name in sorted order; names that start with a dot are the mount's own.

    Raises ConfigError.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(folder, "there is no such directory") from None
    except (OSError, ValueError) as error:
        raise ConfigError(folder, f"can't be read: {getattr(error, 'strerror', error)}") from None


def _read(path: Path, *, private: bool) -> bytes:
    try:
        descriptor = _opened(path)
        try:
            # Of the open file, so that what was checked is what is read; of a symbolic link that is its target.
            _check(path, os.fstat(descriptor).st_mode, private=private)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        message = _NOT_PLAIN if error.errno == errno.ENXIO else f"can't be read: {error.strerror}"  # ENXIO: a socket
        raise ConfigError(path, message) from None
    except ValueError:
        raise ConfigError(path, "isn't a path: it holds a NUL character") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(path, f"is over {_MAX_BYTES} bytes")
    return content


def _opened(path: Path) -> int:
    """A descriptor, without waiting: a path can become a pipe that nobody writes to, and the wait couldn't be ended."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags if _from_shell(path) else flags | os.O_NONBLOCK)


def _check(path: Path, mode: int, *, private: bool) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode) and not _from_shell(path):
        raise ConfigError(path, _NOT_PLAIN)
    if private and mode & 0o007:
        raise ConfigError(path, f"can be read by others; run: chmod o= {path}")
    if mode & 0o002:
        raise ConfigError(path, f"can be changed by others; run: chmod o-w {path}")


def _from_shell(path: Path) -> bool:
    """Whether it is a descriptor that whoever started the command handed to it, as a shell does for `<(command)`."""
    return path.parent == _DESCRIPTORS
