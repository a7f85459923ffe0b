"""Rate limits as the policy file and the settings write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from livekit_auth_server.config.project_name import ProjectName  # noqa: TC001 - pydantic reads it
from livekit_auth_server.core.limits import UNITS, Limit
from livekit_auth_server.files.field_types import AnyOr, Model, listed, one_of, patterned
from livekit_auth_server.service.methods import COUNTED_AS, LIMITED, WITHOUT_PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from livekit_auth_server.files.document import Document
    from livekit_auth_server.files.errors import Location

_RATE = re.compile(r"(?P<amount>[1-9][0-9]{0,6})/(?P<unit>[smhd])\Z")


def rate(text: object) -> str:
    """Checks a rate such as "20/s". Raises ValueError."""
    if not isinstance(text, str) or not _RATE.match(text):
        raise ValueError('should be a rate such as "20/s", "600/m", "10000/h" or "100000/d", at most 9999999')
    return text


def _counted_by_itself(name: str) -> str:
    if name in COUNTED_AS:
        raise ValueError(f"{name} counts as {COUNTED_AS[name]}: name that")
    return name


Rate = Annotated[str, BeforeValidator(rate), patterned(r"[1-9][0-9]{0,6}/[smhd]")]
MethodName = Annotated[
    StrictStr,
    AfterValidator(_counted_by_itself),
    one_of(frozenset(LIMITED), "method that can be limited"),
    listed(LIMITED),
]
Methods = Annotated[AnyOr[MethodName], Field(min_length=1)]


class UnlistedLimit(Model):
    """One limit of all callers together that the policy doesn't list."""

    rate: Rate = Field(description="How many in any second, minute, hour or day: 20/s, 600/m, 10000/h, 100000/d.")

    def limit(self) -> Limit:
        """The limit itself."""
        return _limit(self.rate)


class DefaultLimit(UnlistedLimit):
    """One limit of a caller: `methods` says which calls it counts, all in one counter."""

    methods: Methods = Field(
        default="any",
        description="The methods whose calls it counts, all in one counter, or any. A batch's entries are IssueTokens.",
    )

    def limit(self) -> Limit:
        """The limit itself."""
        return _limit(self.rate, self.methods)


class CallerLimit(DefaultLimit):
    """The same in a policy, where it can be of one project."""

    project: ProjectName | None = Field(default=None, description="Counts calls in this project only.")

    @model_validator(mode="after")
    def _has_project(self) -> CallerLimit:
        if self.project is not None and self.methods != "any" and WITHOUT_PROJECT.issuperset(self.methods):
            raise ValueError(f"{', '.join(self.methods)} has no project, so this limit would count nothing")
        return self

    def limit(self) -> Limit:
        """The limit itself."""
        return _limit(self.rate, self.methods, self.project or "")


def caller_limits(
    file: Document, place: Location, written: Sequence[CallerLimit], projects: frozenset[str]
) -> tuple[Limit, ...]:
    """A caller's limits. Raises ConfigError for a project that isn't configured, and for a duplicate limit."""
    for index, entry in enumerate(written):
        if entry.project is not None and entry.project not in projects:
            known = ", ".join(sorted(projects)) or "none"
            message = f'there is no project "{entry.project}"; configured are: {known}'
            raise file.error((*place, index, "project"), message)
    limits = tuple(entry.limit() for entry in written)
    if (twice := repeated(limits)) is not None:
        raise file.error((*place, twice), "duplicate limit; remove one")
    return limits


def repeated(limits: Iterable[Limit]) -> int | None:
    """The index of the first limit that has stood before: two counters can't have one name."""
    seen: set[str] = set()
    for index, limit in enumerate(limits):
        if limit.key in seen:
            return index
        seen.add(limit.key)
    return None


def _limit(rate: str, methods: Literal["any"] | list[str] = "any", project: str = "") -> Limit:
    amount, unit = rate.split("/")
    return Limit(int(amount), UNITS[unit], None if methods == "any" else frozenset(methods), project)
