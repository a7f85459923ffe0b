"""A file of data: JSON where its name ends in .json, YAML everywhere else. Errors name the place and the line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from livekit_auth_server.files import json_text, yaml_text
from livekit_auth_server.files.errors import FIELD_UNKNOWN, ConfigError, Location, first_mistake, placed
from livekit_auth_server.files.read import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)

_FIELD_NAME = re.compile(r"[a-z_]{1,40}\Z")  # any other name may be a secret in the wrong place
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # may come first


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its path, its bytes and its data.

    `secret` hides text in errors. A secret file is YAML whatever its name: the commands that change it edit YAML.
    """

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
            text = _decoded(content)
        except UnicodeDecodeError:
            raise ConfigError(path, "isn't UTF-8 text") from None
        if _is_json(path, secret=secret):
            return cls(path, content, json_text.parse_json(path, text), secret)
        return cls(path, content, yaml_text.parse_yaml(path, text, secret=secret), secret)

    def error(self, location: Location, message: str) -> ConfigError:
        """An error at a place in the data."""
        return ConfigError(self.path, placed(location, message), self.line(location))

    def line(self, location: Location) -> int | None:
        """The line of a place in the data, or of the nearest thing around it that has one."""
        if self.data is None:
            return None
        if _is_json(self.path, secret=self.secret):
            return json_text.find_line(_decoded(self.content), location)
        return yaml_text.find_line(self.data, location)

    def validated(self, model: type[M], place: Location = ()) -> M:
        """The data, or the part of it at a place, as this model.

        Raises ConfigError with the first mistake and the number of further ones.
        """
        if self.data is None:
            raise ConfigError(self.path, "is empty")
        part = self.data
        for step in place:
            part = part[step]
        try:
            return model.model_validate(part)
        except ValidationError as error:
            raise self.first_error(error, place) from None

    def first_error(self, error: ValidationError, place: Location = ()) -> ConfigError:
        """A validation error, of the part at a place, as a ConfigError; the input stays out of it."""
        kind, within, message = first_mistake(error)
        location = (*place, *within)
        line = self.line(location)
        if kind == FIELD_UNKNOWN and (self.secret or not _FIELD_NAME.match(str(location[-1]))):
            location = location[:-1]  # the name may be a secret in the wrong place
        return ConfigError(self.path, placed(location, message), line)


def _decoded(content: bytes) -> str:
    # The codec utf-8-sig would be imported now, by a process that may no longer be able to read it.
    return content.removeprefix(_BYTE_ORDER_MARK).decode()


def _is_json(path: Path, *, secret: bool) -> bool:
    return path.suffix == ".json" and not secret
