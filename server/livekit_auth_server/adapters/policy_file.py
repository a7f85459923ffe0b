"""The policy file: YAML, checked by pydantic, compiled into core.policy. docs/policy.md describes it.

Guarantees: an unknown field, a duplicate key or caller, a role or project that doesn't exist, and a power without its
conditions are errors with a line; a file that loads is complete.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    create_model,
    model_validator,
)

from livekit_auth_server.adapters.yaml_file import Location, YamlFile
from livekit_auth_server.core.grants import (
    GROUPS,
    ORDINARY_GRANTS,
    POWERS,
    TRACK_SOURCES,
    UNSCOPED_POWERS,
    Grants,
    needs,
)
from livekit_auth_server.core.identity import WorkloadId
from livekit_auth_server.core.policy import (
    AGENT_TTL_LIMIT,
    TTL_LIMIT,
    AllowEntry,
    CallerPolicy,
    Matcher,
    Policy,
)
from livekit_auth_server.service.validation import MAX_TTL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DURATION = re.compile(r"(?:(?P<h>\d{1,5})h)?(?:(?P<m>\d{1,7})m)?(?:(?P<s>\d{1,9})s)?\Z")


def seconds(value: object) -> int:
    """The seconds in "1h30m", "10m" or "45s". Raises ValueError."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    total = sum(int(match[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1))) if match else 0
    if not 1 <= total <= MAX_TTL:
        raise ValueError('should be a duration such as "10m", "1h30m" or "45s", at least 1s and at most 8760h')
    return total


def _workload_id(text: str) -> str:
    return WorkloadId.parse(text).text


def _one_of(names: frozenset[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"there is no {what} of this name; there are: {', '.join(sorted(names))}")
        return name

    return AfterValidator(check)


Seconds = Annotated[int, BeforeValidator(seconds)]
Name = Annotated[StrictStr, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]
OrdinaryGrant = Annotated[StrictStr, _one_of(ORDINARY_GRANTS, "ordinary grant")]
Power = Annotated[StrictStr, _one_of(POWERS, "power")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Matching(_Model):
    """One matcher: `exact` or `prefix`, a whole value or its beginning, byte for byte."""

    exact: StrictStr | None = None
    prefix: StrictStr | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Matching:
        given = [value for value in (self.exact, self.prefix) if value is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of exact and prefix")
        if not given[0]:
            raise ValueError("an empty matcher would match nothing or everything; write `any` instead of the list")
        return self


class Ttl(_Model):
    """How long tokens live: `default` where the request doesn't say, `max` at most."""

    default: Seconds = AGENT_TTL_LIMIT
    max: Seconds = TTL_LIMIT


class Allow(_Model):
    """One entry: it permits a request only as a whole. What isn't written permits nothing."""

    name: StrictStr | None = Field(default=None, min_length=1, max_length=64)
    projects: Literal["any"] | list[Name]
    roles: list[Name] = Field(default_factory=list)
    grants: Literal["any"] | list[OrdinaryGrant] = Field(default_factory=list)
    powers: list[Power] = Field(default_factory=list)
    rooms: Literal["any"] | list[Matching] = Field(default_factory=list)
    identities: Literal["any"] | list[Matching] = Field(default_factory=list)
    ttl: Ttl = Field(default_factory=Ttl)


class Verify(_Model):
    """The projects whose webhooks and tokens a caller may verify."""

    webhooks: Literal["any"] | list[Name] = Field(default_factory=list)
    tokens: Literal["any"] | list[Name] = Field(default_factory=list)


class CallerEntry(_Model):
    """What one workload identity may do."""

    id: Annotated[StrictStr, AfterValidator(_workload_id)]
    allow: list[Allow] = Field(default_factory=list)
    verify: Verify = Field(default_factory=Verify)


def _strict(hint: Any, name: str) -> Any:  # noqa: ANN401 - types
    """The type of a role's field: no "yes" for true, and no null."""
    if name == "can_publish_sources":
        return list[Literal[TRACK_SOURCES]]  # type: ignore[valid-type]
    return {str: StrictStr, tuple[str, ...]: list[StrictStr]}.get(hint, StrictBool)


def _grant_models() -> Iterator[tuple[str, Any]]:
    """A model for each group of grants, made of its dataclass, so that the two can't differ."""
    for name, group in GROUPS.items():
        hints = get_type_hints(group)
        members: dict[str, Any] = {
            f.name: (_strict(hints[f.name], f.name), list(f.default) if isinstance(f.default, tuple) else f.default)
            for f in fields(group)
        }
        yield name, (create_model(group.__name__, __base__=_Model, **members) | None, None)


Role: Any = create_model("Role", __base__=_Model, **dict(_grant_models()))


class PolicyFile(_Model):
    """The whole file."""

    version: Literal[1]
    roles: dict[Name, Role] = Field(default_factory=dict)
    callers: list[CallerEntry]


def load_policy(path: Path, projects: frozenset[str] | None) -> Policy:
    """Reads and compiles a policy. `projects` are the configured ones; None takes any name. Raises ConfigError."""
    return compile_policy(YamlFile.read(path), projects)


def compile_policy(file: YamlFile, projects: frozenset[str] | None) -> Policy:
    """Compiles a parsed policy. Raises ConfigError with a line."""
    document = file.validated(PolicyFile)
    roles = {name: _role(role) for name, role in document.roles.items()}
    callers: dict[str, CallerPolicy] = {}
    for index, caller in enumerate(document.callers):
        place: Location = ("callers", index)
        if caller.id in callers:
            raise file.error((*place, "id"), f"{caller.id} stands twice; put its entries under one caller")
        entries = tuple(
            _entry(file, (*place, "allow", number), allow, roles, projects) for number, allow in enumerate(caller.allow)
        )
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names):
            raise file.error((*place, "allow"), "two entries have one name; decisions couldn't tell them apart")
        callers[caller.id] = CallerPolicy(
            caller.id,
            entries,
            _projects(file, (*place, "verify", "webhooks"), caller.verify.webhooks, projects),
            _projects(file, (*place, "verify", "tokens"), caller.verify.tokens, projects),
        )
    return Policy(hashlib.sha256(file.content).hexdigest()[:16], roles, callers)


def _role(role: Any) -> Grants:  # noqa: ANN401 - an instance of Role
    groups = {}
    for name, group in GROUPS.items():
        model = getattr(role, name)
        if model is not None:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in model}
            groups[name] = group(**values)
    return Grants(**groups)


def _entry(
    file: YamlFile, place: Location, allow: Allow, roles: dict[str, Grants], projects: frozenset[str] | None
) -> AllowEntry:
    entry = AllowEntry(
        name=allow.name or f"allow[{place[-1]}]",
        projects=_projects(file, (*place, "projects"), allow.projects, projects),
        roles=frozenset(allow.roles),
        grants=ORDINARY_GRANTS if allow.grants == "any" else frozenset(allow.grants),
        powers=frozenset(allow.powers),
        rooms=_matcher(allow.rooms),
        identities=_matcher(allow.identities),
        default_ttl=allow.ttl.default,
        max_ttl=allow.ttl.max,
    )
    _check_roles(file, place, entry, roles, allow.roles)
    if not entry.rooms.any and (unscoped := entry.powers & UNSCOPED_POWERS):
        names = ", ".join(sorted(unscoped))
        raise file.error((*place, "powers"), f"LiveKit doesn't scope {names} to a room; write `rooms: any` beside it")
    if entry.default_ttl > entry.max_ttl:
        raise file.error((*place, "ttl"), "the default is longer than the max")
    if entry.max_ttl > TTL_LIMIT and "long_ttl" not in entry.powers:
        raise file.error((*place, "ttl", "max"), "over 1h needs the power long_ttl")
    return entry


def _check_roles(
    file: YamlFile, place: Location, entry: AllowEntry, roles: dict[str, Grants], named: list[str]
) -> None:
    """Every role that the entry names exists and could be permitted by it."""
    for index, name in enumerate(named):
        here = (*place, "roles", index)
        if name not in roles:
            raise file.error(here, f'there is no role "{name}"; define it under roles')
        if missing := needs(roles[name]).powers - entry.powers:
            powers = ", ".join(sorted(missing))
            raise file.error(here, f'role "{name}" needs powers that the entry doesn\'t list: {powers}')
        video = roles[name].video
        if video and video.agent and entry.default_ttl > AGENT_TTL_LIMIT and "long_ttl" not in entry.powers:
            raise file.error((*place, "ttl"), f'role "{name}" has agent: a ttl over 10m needs the power long_ttl')


def _projects(
    file: YamlFile, place: Location, named: Literal["any"] | list[str], projects: frozenset[str] | None
) -> frozenset[str]:
    if named == "any":
        return projects or frozenset()
    for index, name in enumerate(named):
        if projects is not None and name not in projects:
            known = ", ".join(sorted(projects)) or "none"
            raise file.error((*place, index), f'there is no project "{name}"; configured are: {known}')
    return frozenset(named)


def _matcher(rules: Literal["any"] | list[Matching]) -> Matcher:
    if rules == "any":
        return Matcher(any=True)
    exact = frozenset(rule.exact for rule in rules if rule.exact is not None)
    return Matcher(exact=exact, prefixes=tuple(rule.prefix for rule in rules if rule.prefix is not None))
