"""The policy file: YAML, checked by pydantic, compiled into core.policy. docs/policy.md describes it.

Guarantees: an unknown field, a duplicate key or caller, a role or project that doesn't exist, a power without its
conditions and text that no request could hold are errors with a line; a file that loads is complete.
"""

from __future__ import annotations

import hashlib
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
from livekit_auth_server.adapters.limit_fields import CallerLimit, caller_limits
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
from livekit_auth_server.service.convert import grants_message
from livekit_auth_server.service.validation import MAX_TTL, RULES, violations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def load_policy(path: Path, projects: frozenset[str] | None) -> Policy:
    """Reads and compiles a policy. `projects` are the configured ones. Raises ConfigError.

    None, where they aren't known, takes any name; then `any` stands for those that the file names, or "default".
    """
    return compile_policy(YamlFile.read(path), projects)


def compile_policy(file: YamlFile, projects: frozenset[str] | None) -> Policy:
    """Compiles a parsed policy. Raises ConfigError with a line."""
    document = file.validated(PolicyFile)
    roles = {name: _role(file, name, role) for name, role in document.roles.items()}
    if projects is None:
        projects = _named_projects(document)
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
            caller_limits(file, (*place, "limits"), caller.limits, projects),
        )
    return Policy(hashlib.sha256(file.content).hexdigest()[:16], roles, callers)


def _named_projects(document: PolicyFile) -> frozenset[str]:
    lists = [
        projects
        for caller in document.callers
        for projects in (*(a.projects for a in caller.allow), caller.verify.webhooks, caller.verify.tokens)
    ]
    return frozenset(name for names in lists if names != "any" for name in names) or frozenset({"default"})


def _role(file: YamlFile, name: str, role: Any) -> Grants:  # noqa: ANN401 - an instance of Role
    """The role's grants, which keep the rules that spelled-out grants keep."""
    grants = _grants(role)
    for violation in violations(grants_message(grants)):
        raise file.error(("roles", name, *violation.field.split(".")), violation.description)
    return grants


def _grants(role: Any) -> Grants:  # noqa: ANN401 - an instance of Role
    groups = {}
    for name, group in GROUPS.items():
        model = getattr(role, name)
        if model is not None:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in model}
            groups[name] = group(**values)
    return Grants(**groups)


def _entry(
    file: YamlFile, place: Location, allow: Allow, roles: dict[str, Grants], projects: frozenset[str]
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
        message = f"the default ({entry.default_ttl} s) is longer than the max ({entry.max_ttl} s); write both"
        raise file.error((*place, "ttl"), message)
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
    file: YamlFile, place: Location, named: Literal["any"] | list[str], projects: frozenset[str]
) -> frozenset[str]:
    if named == "any":
        return projects
    for index, name in enumerate(named):
        if name not in projects:
            known = ", ".join(sorted(projects)) or "none"
            raise file.error((*place, index), f'there is no project "{name}"; configured are: {known}')
    return frozenset(named)


def _matcher(rules: Literal["any"] | list[Matching]) -> Matcher:
    if rules == "any":
        return Matcher(any=True)
    exact = frozenset(rule.exact for rule in rules if rule.exact is not None)
    return Matcher(exact=exact, prefixes=tuple(rule.prefix for rule in rules if rule.prefix is not None))
