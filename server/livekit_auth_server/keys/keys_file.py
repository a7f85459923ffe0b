"""API keys from a file, a mounted directory or the environment. No error shows a secret.

A file is LiveKit's own `key: secret` mapping, or this service's form with states:

    keys:
      - {id: APIxyz, secret: …, state: active, not_after: 2027-01-01T00:00:00Z}

In a directory each file is a key: its name the id, its content the secret. The environment variable holds
`key: secret` lines, as livekit-server's LIVEKIT_KEYS does.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - pydantic reads it
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from livekit_auth_server.core.keys import ApiKey, KeyState, Secret
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.field_types import Time  # noqa: TC001 - pydantic reads it
from livekit_auth_server.files.read import files_in, read_private

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_SECRET = 32  # bytes; livekit-server logs an error for less
_FEWEST_CHARACTERS = 10  # different ones; 32 random hexadecimal digits have fewer once in 10,000 times
_MADE_UP = re.compile(rb"secret|passw|change.?me|example|livekit|unsafe|12345|abcde|qwert", re.IGNORECASE)
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_ID_THAT_SHOWS = re.compile(r"API[A-Za-z0-9]{1,24}\Z")  # in errors: any other may be a secret, swapped with its id


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: StrictStr
    secret: StrictStr = Field(repr=False)
    state: KeyState = KeyState.ACTIVE
    not_before: Time | None = None
    not_after: Time | None = None


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: list[_Key]


def keys_from_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file, in its order. Raises ConfigError."""
    return parse_keys(path, read_private(path))


def parse_keys(path: Path, content: bytes) -> tuple[ApiKey, ...]:
    """The keys in the content of a file that is, or will be, at `path`. Raises ConfigError."""
    return _keys(Document.parse(path, content, secret=True))


def keys_from_environment(variable: str, environment: Mapping[str, str] = os.environ) -> tuple[ApiKey, ...]:
    """The keys in an environment variable. Raises ConfigError."""
    if not environment.get(variable):
        raise ConfigError(f"${variable}", "isn't set; it should hold `key: secret` lines")
    return parse_keys(Path(f"${variable}"), os.fsencode(environment[variable]))


def keys_from_directory(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a mounted directory, by name in sorted order; names that start with a dot are the mount's own."""
    files = [file for file in files_in(path) if not os.path.isdir(file)]  # noqa: PTH112 - raises nothing
    if not files:
        raise ConfigError(path, "holds no keys: one file a key, named after its id, with the secret in it")
    return tuple(checked_key(path, file.name, read_private(file)) for file in files)


def made_up(secret: bytes) -> bool:
    """Whether a secret looks written by a person: a word that such secrets have, or few different characters."""
    return len(set(secret)) < _FEWEST_CHARACTERS or _MADE_UP.search(secret) is not None


def made_up_secrets(path: Path, content: bytes) -> frozenset[str]:
    """The ids of keys whose secret looks made up. For content that `parse_keys` has accepted."""
    data = Document.parse(path, content, secret=True).data
    listed = data.get("keys")
    pairs = [(key["id"], key["secret"]) for key in listed] if isinstance(listed, list) else data.items()
    return frozenset(str(name) for name, secret in pairs if made_up(str(secret).encode()))


def _keys(file: Document) -> tuple[ApiKey, ...]:
    if not isinstance(file.data, dict) or not file.data:
        raise ConfigError(file.path, "holds no keys; write `key: secret`, one a line")
    if isinstance(file.data.get("keys"), list):
        return tuple(_stated(file, index, key) for index, key in enumerate(file.validated(_Keys).keys))
    if isinstance(file.data.get("keys"), dict):
        message = "below `keys` stands a list of {id, secret}; `key: secret` lines stand at the top, without `keys`"
        raise ConfigError(file.path, message, file.line(("keys",)))
    return tuple(
        checked_key(file.path, name, _secret_text(file, name, value), file.line((name,)))
        for name, value in file.data.items()
    )


def _stated(file: Document, index: int, key: _Key) -> ApiKey:
    line = file.line(("keys", index))
    made = checked_key(file.path, key.id, _encoded(file, key.secret, line), line)
    if key.not_before and key.not_after and key.not_before >= key.not_after:
        raise ConfigError(file.path, "this key's not_after isn't after its not_before: it would never be valid", line)
    return replace(made, state=key.state, not_before=_seconds(key.not_before), not_after=_seconds(key.not_after))


def _secret_text(file: Document, name: Any, value: Any) -> bytes:  # noqa: ANN401 - YAML
    if not isinstance(name, str) or not isinstance(value, str):
        raise ConfigError(file.path, "a key and its secret are text; quote them", file.line((name,)))
    return _encoded(file, value, file.line((name,)))


def _encoded(file: Document, secret: str, line: int | None) -> bytes:
    """YAML's escapes can write half of a character."""
    try:
        return secret.encode()
    except UnicodeEncodeError:
        raise ConfigError(file.path, "a secret holds a surrogate, which is half of a character", line) from None


def checked_key(where: Path | str, key_id: str, secret: bytes, line: int | None = None) -> ApiKey:
    """One key, active. A line break after the secret is an editor's, not the secret's. Raises ConfigError."""
    if not _KEY_ID.match(key_id):
        raise ConfigError(
            where, "a key id has 1 to 128 letters, digits, '-' and '_' (is the secret where the id belongs?)", line
        )
    secret = secret.rstrip(b"\r\n")
    name = f'key "{key_id}"' if _ID_THAT_SHOWS.match(key_id) else "this key"
    if len(secret) < MIN_SECRET:
        what_to_do = "make a longer one, unless id and secret are swapped"
        raise ConfigError(where, f"the secret of {name} is under {MIN_SECRET} bytes; {what_to_do}", line)
    if secret != secret.strip() or any(byte < ord(" ") for byte in secret):
        raise ConfigError(where, f"the secret of {name} has blanks around it or control characters in it", line)
    return ApiKey(key_id, Secret(secret), place=f"{where}:{line}" if line else str(where))


def _seconds(time: dt.datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
