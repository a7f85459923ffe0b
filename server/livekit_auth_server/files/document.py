"""A file of data, with errors that have lines."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from livekit_auth_server.files.errors import UNKNOWN_FIELD, ConfigError, Location, first_mistake, placed
from livekit_auth_server.files.read import read_bytes
from livekit_auth_server.files.yaml_fast import Unsure, find_line, parse_plain
from livekit_auth_server.files.yaml_text import MOST_REPEATED, parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)

_FIELD_NAME = re.compile(r"[a-z_]{1,40}\Z")  # any other name may be a secret in the wrong place


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its path, its bytes and its data. `secret` hides text in errors."""

    path: Path
    content: bytes
    data: Any
    secret: bool = False

    @classmethod
    def read(cls, path: Path, *, secret: bool = False) -> Document:
        """Reads and parses the file. `secret` keeps the parser's words out of errors. Raises ConfigError."""
        content = read_bytes(path)
        return cls.parse(path, content, secret=secret)

    @classmethod
    def parse(cls, path: Path, content: bytes, *, secret: bool = False) -> Document:
        """Parses content that came from `path`. Raises ConfigError."""
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(path, "isn't UTF-8 text") from None
        with suppress(Unsure):
            return cls(path, content, parse_plain(text, MOST_REPEATED), secret)
        data = parse_yaml(path, text, secret=secret)
        return cls(path, content, data, secret)

    def error(self, location: Location, message: str) -> ConfigError:
        """An error at a place in the data."""
        return ConfigError(self.path, placed(location, message), self.line(location))

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
        if kind == UNKNOWN_FIELD and (self.secret or not _FIELD_NAME.match(str(location[-1]))):
            location = location[:-1]  # the name may be a secret in the wrong place
        return ConfigError(self.path, placed(location, message), line)
