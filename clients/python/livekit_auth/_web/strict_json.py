"""Strict JSON (RFC 8259). Refuses what parsers disagree on: duplicate names, NaN, lone surrogates, deep nesting."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NoReturn

from livekit_auth._web.responses import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 12
"""The deepest nesting of arrays and objects. A room configuration needs eight levels."""

_SHOWN = 64  # characters of a name that a response repeats


def parse_object(body: bytes) -> dict[str, object]:
    """Parses a body that is a JSON object. Raises RefusedError (400), which says what is wrong."""
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
    """Builds an object from its members. Raises RefusedError (400) for a duplicate name."""
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise RefusedError(400, "duplicate field", fields={_shown(name): "duplicate field"})
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
    """Checks the value level by level, without recursion."""
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
        raise RefusedError(400, "a string contains a lone surrogate, which UTF-8 can't encode") from None


def _too_deep() -> RefusedError:
    return RefusedError(400, f"the body is nested deeper than {MAX_DEPTH} levels")


def _shown(name: str) -> str:
    return name[:_SHOWN].encode(errors="replace").decode()
