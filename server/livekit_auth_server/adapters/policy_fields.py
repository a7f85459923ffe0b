"""The fields of the policy file, as pydantic models: what each may hold, and what it means. docs/policy.md has more.

`livekit-auth-server policy schema` makes a JSON Schema of them, so the descriptions here are what an editor shows.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    create_model,
    model_validator,
)
from ruamel.yaml.scalarbool import ScalarBoolean

from livekit_auth_server.adapters.fields import AnyOr, Model, ProjectName, matching, one_of
from livekit_auth_server.adapters.limit_fields import CallerLimit
from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, POWERS, TRACK_SOURCES
from livekit_auth_server.core.identity import WorkloadId
from livekit_auth_server.core.policy import AGENT_TTL_LIMIT, TTL_LIMIT
from livekit_auth_server.service.validation import MAX_TTL, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

_DURATION = re.compile(r"(?:(?P<h>[0-9]{1,5})h)?(?:(?P<m>[0-9]{1,7})m)?(?:(?P<s>[0-9]{1,9})s)?\Z")


def seconds(value: object) -> int:
    """The seconds in "1h30m", "10m" or "45s". Raises ValueError."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    total = sum(int(match[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1))) if match else 0
    if not 1 <= total <= MAX_TTL:
        raise ValueError('should be a duration such as "10m", "1h30m" or "45s", at least 1s and at most 8760h')
    return total


def _workload_id(text: str) -> str:
    return WorkloadId.parse(text).text


def _flag(value: object) -> object:
    if not isinstance(value, (bool, ScalarBoolean)):
        raise ValueError("should be true or false")  # noqa: TRY004 - what pydantic takes
    return bool(value)


def _one(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or value != 1:
        raise ValueError("should be 1, the one version of this form")
    return value


def _unicode(text: str) -> str:
    """YAML's escapes can write half of a character, which no request can hold and no answer can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a surrogate, which is half of a character") from None
    return text


def _identifier(text: str) -> str:
    """A room or an identity, or the beginning of one, as a request could hold it."""
    if wrong := RULES["IssueTokenRequest.room"](text):
        raise ValueError(wrong)
    return text


Seconds = Annotated[int, BeforeValidator(seconds)]
Version = Annotated[int, BeforeValidator(_one)]
Flag = Annotated[StrictBool, BeforeValidator(_flag)]
Text = Annotated[StrictStr, AfterValidator(_unicode)]
Identifier = Annotated[Text, AfterValidator(_identifier)]
RoleName = Annotated[
    StrictStr, matching(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", 'a role\'s name: a-z, 0-9, "-" and "_"')
]
OrdinaryGrant = Annotated[StrictStr, one_of(ORDINARY_GRANTS, "ordinary grant")]
Power = Annotated[StrictStr, one_of(POWERS, "power")]


class Matching(Model):
    """One matcher: `exact` or `prefix`, a whole value or its beginning, byte for byte."""

    exact: Identifier | None = None
    prefix: Identifier | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Matching:
        given = [value for value in (self.exact, self.prefix) if value is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of exact and prefix")
        if not given[0]:
            raise ValueError("an empty matcher would match nothing or everything; write `any` instead of the list")
        return self


class Ttl(Model):
    """How long tokens live: `default` where the request doesn't say, `max` at most."""

    default: Seconds = AGENT_TTL_LIMIT
    max: Seconds = TTL_LIMIT


class Allow(Model):
    """One entry: it permits a request only as a whole. What isn't written permits nothing."""

    name: Annotated[Identifier, Field(min_length=1, max_length=64)] = ""
    projects: AnyOr[ProjectName]
    roles: list[RoleName] = Field(default_factory=list)
    grants: AnyOr[OrdinaryGrant] = Field(default_factory=list)
    powers: list[Power] = Field(default_factory=list)
    rooms: AnyOr[Matching] = Field(default_factory=list)
    identities: AnyOr[Matching] = Field(default_factory=list)
    ttl: Ttl = Field(default_factory=Ttl)


class Verify(Model):
    """The projects whose webhooks and tokens a caller may verify."""

    webhooks: AnyOr[ProjectName] = Field(default_factory=list)
    tokens: AnyOr[ProjectName] = Field(default_factory=list)


class CallerEntry(Model):
    """What one workload identity may do."""

    id: Annotated[StrictStr, AfterValidator(_workload_id)]
    allow: list[Allow] = Field(default_factory=list)
    verify: Verify = Field(default_factory=Verify)
    limits: Annotated[list[CallerLimit], Field(min_length=1)] = Field(default_factory=list)


def _strict(hint: Any, name: str) -> Any:  # noqa: ANN401 - types
    """The type of a role's field: no "yes" for true, and no null."""
    if name == "can_publish_sources":
        return list[Literal[TRACK_SOURCES]]  # type: ignore[valid-type]
    return {str: Text, tuple[str, ...]: list[Text]}.get(hint, Flag)


def _grant_models() -> Iterator[tuple[str, Any]]:
    """A model for each group of grants, made of its dataclass, so that the two can't differ."""
    for name, group in GROUPS.items():
        hints = get_type_hints(group)
        members: dict[str, Any] = {
            f.name: (_strict(hints[f.name], f.name), list(f.default) if isinstance(f.default, tuple) else f.default)
            for f in fields(group)
        }
        yield name, (create_model(group.__name__, __base__=Model, **members), None)


Role: Any = create_model("Role", __base__=Model, **dict(_grant_models()))


class PolicyFile(Model):
    """The whole file."""

    version: Version
    roles: dict[RoleName, Role] = Field(default_factory=dict)
    callers: list[CallerEntry]
