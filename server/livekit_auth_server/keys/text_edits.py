"""Edits to the text of a key file that leave every other byte unchanged: comments, quotes, order, line endings.

ruamel.yaml parses the text and gives positions; the text is edited there. Writing the file out with ruamel.yaml would
move comments to other keys when one is removed, and joined two lines of a file with a quoted secret and a time. These
functions don't check their result: load it and compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from livekit_auth_server.core.keys import KeyState

_UNUSUAL = (AliasToken, AnchorToken, DirectiveToken, TagToken)


@dataclass(frozen=True, slots=True)
class Entry:
    """A new key as it is written. Times are ISO 8601, or empty."""

    id: str
    secret: str
    state: KeyState
    not_before: str = ""
    not_after: str = ""

    def __repr__(self) -> str:
        return f"Entry({self.id!r}, ***)"


class KeyText:
    """The text of a key file in this service's own form, with one `- …` per key."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Takes content that the loader has accepted. Raises ConfigError for a form that can't be edited here."""
        self._path = path
        self._text = content.decode()
        self._break = "\r\n" if "\r\n" in self._text else "\n"
        if any(isinstance(token, _UNUSUAL) for token in YAML(typ="rt").scan(StringIO(self._text, newline=""))):
            raise self._by_hand("uses anchors, aliases, tags or directives")
        root = YAML(typ="rt").compose(StringIO(self._text, newline=""))
        keys = _value(root, "keys")
        if not isinstance(keys, SequenceNode):
            message = "is in LiveKit's own form, where keys have no state; run: livekit-auth-server keys convert"
            raise ConfigError(path, f"{message} {path}")
        if root.flow_style or (keys.flow_style and keys.value):
            raise self._by_hand("isn't written with one `- …` per key")
        self._keys: SequenceNode = keys

    def with_state(self, key_id: str, state: KeyState) -> bytes:
        """The text with this key in another state."""
        entry = self._entry(key_id)
        if (old := _value(entry, "state")) is not None:
            start, end = _span(old)
            quote = self._text[start] if self._text[start] in "'\"" else ""
            return self._spliced(start, end, f"{quote}{state}{quote}")
        first = next(value for name, value in entry.value if name.value == "id")
        if entry.flow_style:
            return self._spliced(first.end_mark.index, first.end_mark.index, f", state: {state}")
        column = entry.value[0][0].start_mark.column
        return self._inserted(self._line_end(first.end_mark.index), " " * column + f"state: {state}")

    def with_entry(self, entry: Entry) -> bytes:
        """The text with one more key, below the last one and in the same style."""
        fields = [f"id: {entry.id}", f"secret: {_quoted(entry.secret)}", f"state: {entry.state}"]
        fields += [f"{name}: {time}" for name in ("not_before", "not_after") if (time := getattr(entry, name))]
        flow = f"- {{{', '.join(fields)}}}"
        if not self._keys.value:
            return self._first(flow)
        last = self._keys.value[-1]
        indent = " " * (self._dash(last) - self._line_start(self._dash(last)))
        block = (self._break + indent + "  ").join([f"- {fields[0]}", *fields[1:]])
        return self._inserted(self._line_end(_end(last)), indent + (flow if last.flow_style else block))

    def _first(self, flow: str) -> bytes:
        """The text with this line instead of `[]`."""
        start, end = _span(self._keys)
        after = self._line_end(end)
        rest = self._text[end:after].rstrip("\r\n")
        start = len(self._text[:start].rstrip(" "))
        return self._spliced(start, after, f"{rest}{self._break}  {flow}{self._break}")

    def without(self, key_id: str) -> bytes:
        """The text without this key. Comments on their own lines stay."""
        entry = self._entry(key_id)
        return self._spliced(self._line_start(self._dash(entry)), self._line_end(_end(entry)), "")

    def _entry(self, key_id: str) -> MappingNode:
        for entry in self._keys.value:
            if isinstance(entry, MappingNode) and (name := _value(entry, "id")) is not None and name.value == key_id:
                return entry
        raise ConfigError(self._path, "holds no key with that id; `livekit-auth-server keys list` shows what it holds")

    def _dash(self, entry: Node) -> int:
        """Where the entry's dash is: the first thing on the line on which the entry begins."""
        start = _span(entry)[0]
        line = self._line_start(start)
        before = self._text[line:start]
        if before.strip(" ") != "-":
            raise self._by_hand("has a key that doesn't begin on the line of its dash")
        return line + before.index("-")

    def _line_start(self, place: int) -> int:
        return self._text.rfind("\n", 0, place) + 1

    def _line_end(self, place: int) -> int:
        """After the line break of the line that this place is on, or the end of the text."""
        if self._text[place - 1 : place] == "\n":  # a block scalar ends after its line
            return place
        found = self._text.find("\n", place)
        return len(self._text) if found < 0 else found + 1

    def _inserted(self, place: int, line: str) -> bytes:
        before = "" if self._text[:place].endswith("\n") else self._break
        return self._spliced(place, place, before + line + self._break)

    def _spliced(self, start: int, end: int, new: str) -> bytes:
        return (self._text[:start] + new + self._text[end:]).encode()

    def _by_hand(self, what: str) -> ConfigError:
        return ConfigError(self._path, f"{what}: such a file can only be changed by hand (docs/configuration.md)")


def converted(path: Path, content: bytes) -> bytes:
    """LiveKit's `key: secret` lines as this service's own form, in their order, all active. Raises ConfigError."""
    text = content.decode()
    root = YAML(typ="rt").compose(StringIO(text, newline=""))
    line_break = "\r\n" if "\r\n" in text else "\n"
    if not isinstance(root, MappingNode) or isinstance(_value(root, "keys"), SequenceNode):
        raise ConfigError(path, "isn't in LiveKit's form: its keys have states already")
    if root.flow_style or any(node.start_mark.line != node.end_mark.line for pair in root.value for node in pair):
        raise ConfigError(path, "isn't written as one `key: secret` per line: write the other form by hand")
    done, rest = text[: _span(root)[0]] + f"keys:{line_break}", _span(root)[0]
    for name, secret in root.value:
        start, end = _span(name)[0], _span(secret)[1]
        new = f"  - id: {text[slice(*_span(name))]}{line_break}    secret: {text[slice(*_span(secret))]}"
        done, rest = done + text[rest:start] + new, end
    return (done + text[rest:]).encode()


def _value(node: Node, name: str) -> Node | None:
    """The value of a mapping's field, None when it has no such field."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if isinstance(key, ScalarNode) and key.value == name), None)


def _span(node: Node) -> tuple[int, int]:
    """Where a node begins and ends in the text, in characters."""
    return node.start_mark.index, node.end_mark.index


def _end(entry: Node) -> int:
    """Where an entry's last value ends: the mark of a block mapping is after the comments that follow it."""
    if isinstance(entry, MappingNode) and not entry.flow_style and entry.value:
        return _end(entry.value[-1][1])
    return _span(entry)[1]


def _quoted(secret: str) -> str:
    """In double quotes, or in single quotes where a character of the secret has a meaning in double ones."""
    return "'" + secret.replace("'", "''") + "'" if '"' in secret or "\\" in secret else f'"{secret}"'
