"""Reads plain YAML with libyaml, many times as fast as ruamel.yaml, which decides what YAML is here.

Guarantees: what it returns is what ruamel.yaml (YAML 1.2) returns for the same text. It takes what both parsers read
alike, resolves plain words by ruamel's own tables, and leaves the rest to ruamel by raising Unsure: tags, merge keys,
directives, several documents, text over several lines, numbers other than decimal ones, times, tabs, keys that are null
or stand twice, deep nesting, and every mistake. So all messages about broken YAML are ruamel's.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ruamel.yaml import YAML
from yaml import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    YAMLError,
)
from yaml.cyaml import CParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DEEPEST, _TOO_DEEP = 32, 200
# Of the rest, YAML 1.1 and 1.2 differ in what ends a line, and the parsers in tabs and in what isn't printable.
_UNUSUAL = re.compile("[^\n -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufdcf\ufdf0-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# Plain words without anything that could be an indicator; the parsers differ in colons. `\w` knows every language.
_PLAIN = re.compile(r"(?:(?:spiffe://|dns:)?[\w~/.+-][\w~/.+@=-]*(?: [\w~/.+@=-]+)*)?\Z")
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,17})\Z")
_TAG = "tag:yaml.org,2002:"
_RESOLVERS = YAML(typ="rt").resolver.versioned_resolver
_NO_KEY: Final = object()
_NEW: Final = object()
_STARTS, _ENDS = (MappingStartEvent, SequenceStartEvent), (MappingEndEvent, SequenceEndEvent)


class Unsure(Exception):  # noqa: N818 - no mistake: ruamel.yaml will say
    """A text that is for ruamel.yaml."""


def parse_plain(text: str, most_repeated: int, take: Callable[[str, Any], Any] | None = None) -> Any:  # noqa: ANN401 - YAML
    """The document in dicts, lists, str, int, bool and None; equal texts are one object. Raises Unsure.

    `most_repeated` is how many values aliases may repeat. `take` is given each item of a list that stands in a field
    of the document, and that field's name, as soon as it is read: what it returns stands in the list instead.
    """
    try:
        return _Builder(most_repeated, take).build(_events(text))
    except YAMLError:
        raise Unsure from None


def is_too_deep(text: str) -> bool:
    """Whether it nests deeper than anything that is meant: ruamel.yaml's time grows with the square of the depth."""
    depth = 0
    try:
        for event in iter(CParser(text).get_event, None):
            depth += (type(event) in _STARTS) - (type(event) in _ENDS)
            if depth > _TOO_DEEP:
                return True
    except YAMLError as error:  # what else is wrong, ruamel says
        return getattr(error, "context", None) == "while increasing flow level"  # libyaml's own bound: 1,000
    return False


def find_line(text: str, location: tuple[int | str, ...]) -> int | None:
    """The line, from 1, of a place in a document that `parse_plain` reads, or of the nearest thing around it."""
    line: int | None = None
    with suppress(Unsure, YAMLError):  # a text of ruamel's has its lines from ruamel
        events = _events(text)
        for event in events:
            if type(event) in _STARTS:
                for place, here in _places(events, event, ()):
                    if place == location[: len(place)]:
                        line = here
                        if len(place) == len(location):
                            return line
    return line


def _places(
    events: Iterator[Any],
    start: Any,  # noqa: ANN401 - PyYAML has no types
    path: tuple[int | str, ...],
) -> Iterator[tuple[tuple[int | str, ...], int]]:
    """Every key and item within the container that has just started, and its line."""
    index = 0
    for event in events:
        if type(event) in _ENDS:
            return
        if type(start) is SequenceStartEvent:
            here, node = (*path, index), event
            index += 1
        else:
            here, node = (*path, event.value if event.style else _resolve(event.value)), next(events)
        yield here, event.start_mark.line + 1
        if type(node) in _STARTS:
            yield from _places(events, node, here)


def _events(text: str) -> Iterator[Any]:
    text = text.replace("\r\n", "\n")
    if _UNUSUAL.search(text):
        raise Unsure
    return iter(CParser(text).get_event, None)


def _resolve(text: str) -> Any:  # noqa: ANN401 - YAML
    """What a plain word stands for. Raises Unsure."""
    if not _PLAIN.match(text):
        raise Unsure
    for tag, regexp in _RESOLVERS.get(text[:1], []):
        if regexp.match(text):
            kind = tag.removeprefix(_TAG)
            if kind == "bool":
                return text.lower() == "true"
            if kind == "null":
                return None
            if kind == "int" and _INTEGER.match(text):
                return int(text)
            raise Unsure
    return text


class _Builder:
    """Makes data of a parser's events."""

    def __init__(self, most_repeated: int, take: Callable[[str, Any], Any] | None) -> None:
        self._take = take
        self._plain: dict[str, Any] = {}  # single words alone: any other text may stand over several lines
        self._texts: dict[str, str] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._most_repeated = most_repeated
        self._repeated = 0
        self._documents = 0

    def build(self, events: Iterator[Any]) -> Any:  # noqa: ANN401, C901, PLR0912 - one loop, for a million events
        """Raises Unsure and YAMLError."""
        plain, take = self._plain, self._take
        into: Any = []  # what is being filled: a list, or a dict with the key that waits for its value
        key: Any = _NO_KEY
        stack: list[tuple[Any, Any, str | None, int]] = []
        for count, event in enumerate(events):
            kind = type(event)
            if kind is ScalarEvent:
                value = _NEW if event.style else plain.get(event.value, _NEW)
                if value is _NEW or event.anchor is not None or event.tag is not None:
                    value = self._scalar(event)
            elif kind in _STARTS:
                if event.tag is not None or len(stack) > _DEEPEST or (type(into) is dict and key is _NO_KEY):
                    raise Unsure
                stack.append((into, key, event.anchor, count + self._repeated))
                into, key = ({} if kind is MappingStartEvent else []), _NO_KEY
                continue
            elif kind in _ENDS:
                value = into
                into, key, anchor, since = stack.pop()
                if anchor is not None:
                    self._remember(anchor, value, count + self._repeated - since)
                elif take is not None and len(stack) == 2 and type(into) is list:  # noqa: PLR2004 - document, field
                    value = take(stack[1][1], value)
            elif kind is AliasEvent:
                value = self._alias(event.anchor)
            else:
                self._other(event, kind)
                continue
            if type(into) is list:
                into.append(value)
            elif key is not _NO_KEY:
                into[key] = value
                key = _NO_KEY
            elif kind is AliasEvent or value is None or value in into:
                raise Unsure
            else:
                key = value
        return into[0] if into else None

    def _scalar(self, event: Any) -> Any:  # noqa: ANN401 - PyYAML has no types
        if event.tag is not None or event.style in ("|", ">") or event.start_mark.line != event.end_mark.line:
            raise Unsure
        text = event.value
        value = text if event.style else _resolve(text)
        if event.style or " " in text:
            value = self._texts.setdefault(value, value)
        else:
            self._plain[text] = value
        if event.anchor is not None:
            self._remember(event.anchor, value, 1)
        return value

    def _remember(self, anchor: str, value: Any, size: int) -> None:  # noqa: ANN401
        if anchor in self._anchors:
            raise Unsure
        self._anchors[anchor] = value, size

    def _alias(self, anchor: str) -> Any:  # noqa: ANN401
        """What the anchor stands for. One that isn't complete yet would hold itself."""
        if anchor not in self._anchors:
            raise Unsure
        value, size = self._anchors[anchor]
        self._repeated += size
        if self._repeated > self._most_repeated:
            raise Unsure
        return value

    def _other(self, event: Any, kind: type[Any]) -> None:  # noqa: ANN401
        """The stream's and the document's own events."""
        if kind is DocumentStartEvent:
            self._documents += 1
            if self._documents > 1 or event.version is not None or event.tags is not None:
                raise Unsure
        if kind is DocumentEndEvent and event.explicit:
            raise Unsure
