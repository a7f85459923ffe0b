"""What a self-check finds, as it passes from the child to the server.

Guarantees: a report holds numbers and names of claims only, never a value, a token, a secret or an exception's text;
decoding takes any bytes and returns a report or None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 60  # until a check has to end; a busy machine gives its low priority a tenth of a core
LISTED = 20  # differences that are named; all are counted
_WHAT = re.compile(r"[A-Za-z0-9_., ()-]{1,500}")


class Kind(StrEnum):
    """What differs."""

    TOKEN = auto()  # a token that this server minted from livekit-api's
    VERIFICATION = auto()  # what livekit-api's TokenVerifier makes of a token
    WEBHOOK = auto()  # what the two make of a webhook


class NotRun(StrEnum):
    """Why a check came to no result."""

    NOT_STARTED = auto()  # no process could be started
    NOT_IMPORTED = auto()  # livekit-api can't be imported
    TIMEOUT = auto()
    OUT_OF_MEMORY = auto()
    CRASHED = auto()
    UNREADABLE = auto()  # the child wrote something else than a report


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `at` is the number of its sample (TOKEN) or its key; `what` names claims, never values."""

    kind: Kind
    at: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """How many tokens and keys were compared, the first differences, and how many there are of each kind."""

    tokens: int
    keys: int
    listed: tuple[Difference, ...] = ()
    counts: Mapping[Kind, int] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        """How many there are."""
        return sum(self.counts.values())


def encode(result: Report | NotRun) -> bytes:
    """The result as JSON."""
    if isinstance(result, NotRun):
        return orjson.dumps({"not_run": result})
    counts = {kind.value: count for kind, count in result.counts.items()}
    return orjson.dumps({"tokens": result.tokens, "keys": result.keys, "listed": result.listed, "counts": counts})


def decode(data: bytes) -> Report | NotRun | None:
    """The result that a child wrote; None for anything else."""
    try:
        found: object = orjson.loads(data)
        match found:
            case {"not_run": str(why)}:
                return NotRun(why)
            case {"tokens": int(tokens), "keys": int(keys), "listed": list(listed), "counts": dict(counts)}:
                counted = {Kind(kind): _count(number) for kind, number in counts.items()}
                return Report(tokens, keys, tuple(_difference(one) for one in listed[:LISTED]), counted)
    except (ValueError, TypeError):  # orjson's error is a ValueError
        pass
    return None


def _difference(found: object) -> Difference:
    match found:
        case {"kind": str(kind), "at": int(at), "what": str(what)} if at >= 0 and _WHAT.fullmatch(what):
            return Difference(Kind(kind), at, what)
    raise ValueError


def _count(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError
    return number
