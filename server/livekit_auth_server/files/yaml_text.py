"""Parses YAML 1.2 with ruamel.yaml: duplicate keys are refused, and the data knows its lines.

A parser's own message can quote the text around a mistake, which in a file of keys is a secret: only positions and the
names of fields are taken from it.
"""

from __future__ import annotations

import re
import warnings
from io import StringIO
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError, MaxDepthExceededError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import RoundTripScanner

from livekit_auth_server.files.errors import MAX_DEPTH, TOO_DEEP, ConfigError, duplicate_key

if TYPE_CHECKING:
    from pathlib import Path

    from livekit_auth_server.files.errors import Location

_QUOTED = re.compile(r"'[A-Za-z0-9+/=_-]{9,}'")  # a word that is long enough to be a part of a secret
MOST_REPEATED = 1_000_000  # values that aliases may repeat: a few lines of them could make any number


def parse_yaml(path: Path, text: str, *, secret: bool) -> Any:  # noqa: ANN401 - YAML
    """The data, which remembers its lines. Raises ConfigError."""
    try:
        with warnings.catch_warnings():  # a warning would print the text that it is about
            warnings.simplefilter("error", YAMLWarning)
            data = _parser().load(StringIO(text))
    except DuplicateKeyError as error:
        raise duplicate_key(path, _first_line(text, error), _line(error)) from None
    except MaxDepthExceededError:
        raise ConfigError(path, f"isn't valid YAML for this service: {TOO_DEEP}") from None
    except MarkedYAMLError as error:
        problem = "" if secret else f" ({_QUOTED.sub('…', str(error.problem))})"
        message = f"isn't valid YAML{problem}; check the indentation, and put text with special characters in quotes"
        raise ConfigError(path, message, _line(error)) from None
    except YAMLWarning:
        message = "isn't plain YAML (an anchor that is defined twice, or a number in YAML 1.1's form)"
        raise ConfigError(path, message) from None
    except Exception:  # noqa: BLE001 - ruamel lets KeyError and others escape, with the text that they are about
        raise ConfigError(path, "isn't valid YAML") from None
    if "*" in text and _repeats(data) > MOST_REPEATED:
        raise ConfigError(path, f"aliases repeat more than {MOST_REPEATED} values; write less by aliases")
    return data


def find_line(data: Any, location: Location) -> int | None:  # noqa: ANN401 - YAML
    """The line of a place in data of `parse_yaml`, or of the nearest place around it; None for the whole."""
    node, line = data, None
    for part in location:
        try:
            position = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            line, node = position[0] + 1, node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


class _Scanner(RoundTripScanner):
    """Stops at deep brackets while it looks ahead: its time grows with the square of their depth."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: ANN401, N803 - ruamel's
        if self.flow_level >= MAX_DEPTH:
            raise MaxDepthExceededError(None, None, TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


# What YAML resolves plain values to, and << for merged mappings. Any other tag would be dropped, or read as a list.
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge", "value")
)


class _Composer(Composer):
    """Refuses unknown tags, and lists and mappings as keys, also by alias: their cost doubles with each level."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:  # noqa: ANN401 - ruamel's
        mark = self.parser.peek_event().start_mark
        node: Node | None = super().compose_node(parent, index)
        if index is None and isinstance(parent, MappingNode) and not isinstance(node, ScalarNode):
            raise ComposerError(None, None, "a key is a list or a mapping", mark)
        if node is not None and str(node.tag) not in _TAGS:
            raise ComposerError(None, None, "a tag that this service doesn't know", mark)
        return node


def _parser() -> YAML:
    yaml = YAML(typ="rt")
    yaml.max_depth = MAX_DEPTH
    yaml.Scanner = _Scanner
    yaml.Composer = _Composer
    return yaml


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
        return look(_parser().compose(StringIO(text)))
    except Exception:  # noqa: BLE001 - such as of a mapping that holds itself; the duplicate's own line is known
        return None


def _repeats(data: Any) -> int:  # noqa: ANN401 - YAML
    """How many values aliases repeat. For data that contains itself, at least one."""
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


def _line(error: MarkedYAMLError) -> int | None:
    """The line of a parser's error, counted from 1."""
    return error.problem_mark.line + 1 if error.problem_mark else None
