"""YAML files with errors that have lines. Duplicate keys are refused; what a secret file holds never shows.

A parser's own message can quote the text around a mistake, which in a file of keys is a secret: only positions and the
names of fields are taken from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)
Location = tuple[int | str, ...]

_UNION_BRANCH = re.compile(r"[\[\](){}]|^(?:Matching|str|list|literal)$")
_MAX_BYTES = 32 * 1024 * 1024


class ConfigError(Exception):
    """A file or setting that can't be used: where, why and what to do, in one message without a secret."""

    def __init__(self, where: Path | str, message: str, line: int | None = None) -> None:
        place = f"{where}:{line}" if line else str(where)
        super().__init__(f"{place}: {message}")
        self.where, self.line, self.message = str(where), line, message


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed file: its path, its bytes and its data, which remembers its lines."""

    path: Path
    content: bytes
    data: Any

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
        try:
            return cls(path, content, YAML(typ="rt").load(StringIO(text)))
        except DuplicateKeyError as error:
            raise ConfigError(path, "a key stands twice in one mapping; remove one", _line(error)) from None
        except MarkedYAMLError as error:
            problem = "" if secret else f" ({error.problem})"
            raise ConfigError(path, f"isn't valid YAML{problem}", _line(error)) from None
        except (YAMLError, ValueError, RecursionError):
            raise ConfigError(path, "isn't valid YAML") from None

    def error(self, location: Location, message: str) -> ConfigError:
        """An error at a place in the data."""
        name = ".".join(str(part) for part in location)
        return ConfigError(self.path, f"{name}: {message}" if name else message, self.line(location))

    def line(self, location: Location) -> int | None:
        """The line of a place in the data, or of the nearest thing around it that has one."""
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
        mistakes = error.errors(include_input=False, include_url=False, include_context=False)
        first = mistakes[0]
        message = readable(first["type"], first["msg"])
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        return self.error(shown(first["loc"]), message + more)


def shown(location: Location) -> Location:
    """A location without the names that pydantic gives to the branches of a union."""
    return tuple(part for part in location if isinstance(part, int) or not _UNION_BRANCH.search(part))


def readable(kind: str, message: str) -> str:
    """A mistake in words that say what to do."""
    if kind == "extra_forbidden":
        return "there is no such field; check its spelling"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ").replace("Input should be", "should be")


def _line(error: MarkedYAMLError) -> int | None:
    """The line of a parser's error, counted from 1."""
    return error.problem_mark.line + 1 if error.problem_mark else None


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(path, f"is over {_MAX_BYTES} bytes")
    return content


def read_private(path: Path) -> bytes:
    """The bytes of a file that holds a secret. Raises ConfigError when others than owner and group can read it."""
    try:
        mode = path.resolve(strict=True).stat().st_mode
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from None
    if mode & 0o007:
        raise ConfigError(path, f"can be read by others; run: chmod o= {path}")
    return read_bytes(path)
