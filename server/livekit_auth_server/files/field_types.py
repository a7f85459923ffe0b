"""Field types that the policy file and the settings share."""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Tag,
    WithJsonSchema,
    model_validator,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def one_of(names: frozenset[str], what: str) -> AfterValidator:
    """Checks that a name is one of these. Editors are told by `listed`."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"there is no {what} of this name; there are: {', '.join(sorted(names))}")
        return name

    return AfterValidator(check)


def listed(names: Iterable[str]) -> WithJsonSchema:
    """Tells editors the names that a field takes."""
    return WithJsonSchema({"type": "string", "enum": sorted(names)})


def patterned(pattern: str) -> WithJsonSchema:
    """Tells editors the form of a text: a regular expression for the whole of it."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


def matching(pattern: str, what: str) -> AfterValidator:
    """Checks a name's form."""
    form = re.compile(pattern)

    def check(name: str) -> str:
        if not form.fullmatch(name):
            raise ValueError(f"isn't {what}, at most 63 characters, with a letter or digit at both ends")
        return name

    return AfterValidator(check)


def _any(value: object) -> object:
    if value != "any":
        raise ValueError("should be a list, or the word any")
    return value


T = TypeVar("T")

# `any` or a list. Told apart by what is written, so that a mistake in a list is reported as one.
_ANY, _LIST = "[any]", "[list]"
AnyOr = Annotated[
    Annotated[Literal["any"], BeforeValidator(_any), Tag(_ANY)] | Annotated[list[T], Tag(_LIST)],
    Discriminator(lambda value: _ANY if isinstance(value, str) else _LIST),
]


class Model(BaseModel):
    """A mapping with these fields and no others. Its values stay out of errors."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"should be a mapping with the fields {', '.join(cls.model_fields)}")  # noqa: TRY004 - what pydantic takes
        return value


def time_with_zone(value: object) -> dt.datetime:
    """A time with its zone. YAML reads an unquoted one as a datetime; a number could be anything and is refused.

    Raises ValueError, without the value.
    """
    text = value.isoformat() if isinstance(value, dt.datetime) else value
    with suppress(ValueError, OverflowError):  # what isn't a time, and what UTC's years don't reach
        time = dt.datetime.fromisoformat(text) if isinstance(text, str) else None
        if time is not None and time.tzinfo is not None and time.astimezone(dt.UTC):
            return time
    raise ValueError("should be a time with its zone, such as 2027-01-01T00:00:00Z")


Time = Annotated[dt.datetime, BeforeValidator(time_with_zone)]


def _one(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or value != 1:
        raise ValueError("should be 1, the one version of this form")
    return value


Version = Annotated[int, BeforeValidator(_one), WithJsonSchema({"type": "integer", "const": 1})]
