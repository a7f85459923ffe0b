"""A key file under edit: the keys it should hold afterwards, its text, and the check that they agree.

Guarantees: the text that replaces the file was loaded as the server would load it, and holds the same keys with the
same secrets as before, apart from the requested change.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from livekit_auth_server.core.keys import ApiKey, KeyState
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.private_file import PrivateFile, editing
from livekit_auth_server.keys.keys_file import parse_keys
from livekit_auth_server.keys.text_edits import Entry, KeyText, converted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class RefusedError(Exception):
    """The change would break a rule, and the file is unchanged. The message says what to do instead."""


@dataclass(slots=True)
class KeysEdit:
    """The keys as they should be at the end, and the text so far. Call `save` last."""

    file: PrivateFile
    keys: tuple[ApiKey, ...]
    content: bytes = field(repr=False)

    @property
    def changed(self) -> bool:
        """Whether there is anything to save."""
        return self.content != self.file.content

    def key(self, key_id: str) -> ApiKey:
        """The key with this id. Raises RefusedError, without the id: it may be a misplaced secret."""
        for key in self.keys:
            if key.id == key_id:
                return key
        raise RefusedError("the file holds no key with that id; `livekit-auth-server keys list` shows those it holds")

    def set_state(self, key_id: str, state: KeyState) -> None:
        """Gives a key another state. Raises ConfigError, and RefusedError when there is no such key."""
        if self.key(key_id).state is not state:
            self.content = self._text().with_state(key_id, state)
            self.keys = tuple(replace(key, state=state) if key.id == key_id else key for key in self.keys)

    def demote_active(self, but: str = "") -> None:
        """Makes every active key verify-only, except one."""
        for key in self.keys:
            if key.state is KeyState.ACTIVE and key.id != but:
                self.set_state(key.id, KeyState.VERIFY_ONLY)

    def append(self, key: ApiKey, entry: Entry) -> None:
        """Adds a key below the others. Raises RefusedError for an id or a secret that the file holds."""
        if any(key.id == other.id for other in self.keys):
            raise RefusedError("the file holds a key with that id; choose another")
        if any(_mark(key) == _mark(other) for other in self.keys):
            raise RefusedError("another key of the file has this secret; a new key needs a secret of its own")
        self.content = self._text().with_entry(entry)
        self.keys = (*self.keys, key)

    def remove(self, key_id: str) -> None:
        """Removes a key."""
        self.content = self._text().without(key_id)
        self.keys = tuple(key for key in self.keys if key.id != key_id)

    def convert(self) -> None:
        """Turns LiveKit's form into this service's own, all keys active."""
        self.content = converted(self.file.path, self.file.content)

    def check(self, taken: Mapping[str, str]) -> None:
        """Loads the new text and compares. `taken` has the ids of other projects. Raises ConfigError."""
        try:
            got = [_whole(key) for key in load(self.file.path, self.content)]
        except ConfigError:
            got = []
        if got != [_whole(key) for key in self.keys]:
            raise ConfigError(self.file.path, "is written in a way that can only be changed by hand")
        check_unique(self.file.path, self.keys, taken)

    def save(self) -> None:
        """Replaces the file with the new text, unless nothing changed. Raises ConfigError."""
        if self.changed:
            self.file.replace(self.content)

    def _text(self) -> KeyText:
        return KeyText(self.file.path, self.content)


@contextmanager
def editing_keys(path: Path, *, to_convert: bool = False) -> Iterator[KeysEdit]:
    """Locks and loads a key file. Raises ConfigError, at once for a form that can only be converted."""
    with editing(path) as file:
        keys = load(path, file.content)
        if not to_convert:
            KeyText(path, file.content)
        yield KeysEdit(file, keys, file.content)


def load(path: Path, content: bytes) -> tuple[ApiKey, ...]:
    """The keys in a file's content, whose ids differ. Raises ConfigError."""
    keys = parse_keys(path, content)
    by_id: dict[str, ApiKey] = {}
    for key in keys:
        if (first := by_id.setdefault(key.id, key)) is not key:
            raise ConfigError(
                path, f"duplicate key id: at {first.place} and at {key.place}; remove one of the two keys"
            )
    return keys


def check_unique(path: Path, keys: tuple[ApiKey, ...], taken: Mapping[str, str]) -> None:
    """Raises ConfigError when another project has a key's id, and says which one and where."""
    for key in keys:
        if key.id in taken:
            message = (
                f"duplicate key id: at {key.place} and in project {taken[key.id]}; key ids are unique across projects"
            )
            raise ConfigError(path, message)


def _mark(key: ApiKey) -> bytes:
    """Equal for equal secrets. It is derived from the secret: keep it in this module."""
    return key.secret.sign(b"livekit-auth keys")


def _whole(key: ApiKey) -> tuple[object, ...]:
    return (key.id, key.state, key.not_before, key.not_after, _mark(key))
