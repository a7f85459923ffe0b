"""JSON as RFC 8259 has it, without what parsers disagree on: names given twice, NaN, lone surrogates, deep nesting."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NoReturn

from livekit_auth._web.responses import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 12
"""How deep arrays and objects may nest: a room configuration needs eight."""

_SHOWN = 64  # characters of a name that an answer repeats


def parse_object(body: bytes) -> dict[str, object]:
    """The JSON object in a body. Raises RefusedError (400), which says what is wrong."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise RefusedError(400, "the body isn't UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=pairs_to_object, parse_constant=_constant, parse_float=_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise RefusedError(400, f"the body isn't JSON{where}") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body isn't a JSON object")
    _check(value)
    return value


def pairs_to_object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """An object's members. Raises RefusedError (400) when a name is given twice."""
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise RefusedError(400, "a field is given twice", fields={_shown(name): "is given twice"})
        members[name] = value
    return members


def _constant(name: str) -> NoReturn:
    raise RefusedError(400, f"{name} isn't JSON")


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise RefusedError(400, "a number is too large")
    return number


def _check(value: object) -> None:
    """Walks the value level by level, so that depth costs no stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item)
        level = below
    if level:
        raise _too_deep()


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RefusedError(400, "a text has half of a surrogate pair, which UTF-8 can't hold") from None


def _too_deep() -> RefusedError:
    return RefusedError(400, f"the body nests deeper than {MAX_DEPTH} levels")


def _shown(name: str) -> str:
    return name[:_SHOWN].encode(errors="replace").decode()
