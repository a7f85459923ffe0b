"""The policy file: YAML, checked by pydantic, compiled into core.policy. docs/policy.md describes it.

Guarantees: an unknown field, a duplicate key or caller, a role or project that doesn't exist, a power without its
conditions and text that no request could hold are errors with a line; a file that loads is complete.

A large file is compiled caller by caller while it is read, so that neither its data nor its models stand in memory as a
whole, and equal parts of callers are one object. Whatever is wrong is found again, and reported, by the plain way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from livekit_auth_server.config.limits import caller_limits
from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, UNSCOPED_POWERS, Grants, needs
from livekit_auth_server.core.policy import AGENT_TTL_LIMIT, TTL_LIMIT, AllowEntry, CallerPolicy, Matcher, Policy
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError, Location
from livekit_auth_server.files.read import read_bytes
from livekit_auth_server.files.yaml_fast import Unsure, parse_plain
from livekit_auth_server.files.yaml_text import MOST_REPEATED
from livekit_auth_server.policy.models import Allow, CallerEntry, Matching, PolicyFile
from livekit_auth_server.service.convert import grants_message
from livekit_auth_server.service.validation import violations

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T", bound="Hashable")
DEFAULT_PROJECTS = frozenset({"default"})
"""What `any` stands for where projects are neither configured nor named."""


def load_policy(path: Path, projects: frozenset[str] | None) -> Policy:
    """Reads and compiles a policy. `projects` are the configured ones. Raises ConfigError.

    None, where they aren't known, takes any name; then `any` stands for those that the file names, or "default".
    """
    return _load(path, read_bytes(path), projects)


def load_policies(paths: Sequence[Path], projects: frozenset[str] | None) -> list[Policy]:
    """Several policies to compare: where `projects` is None, `any` stands for those that any of them names."""
    contents = [(path, read_bytes(path)) for path in paths]
    if projects is None:
        projects = frozenset().union(*(_named(path, content) for path, content in contents)) or DEFAULT_PROJECTS
    return [_load(path, content, projects) for path, content in contents]


def _load(path: Path, content: bytes, projects: frozenset[str] | None) -> Policy:
    known = projects if projects is not None else (_named(path, content) or DEFAULT_PROJECTS)
    policy = _compile_while_reading(path, content, known)
    return policy or compile_policy(Document.parse(path, content), projects)


def compile_policy(file: Document, projects: frozenset[str] | None) -> Policy:
    """Compiles a parsed policy. Raises ConfigError with a line."""
    document = file.validated(PolicyFile)
    roles = {name: _role(file, name, role) for name, role in document.roles.items()}
    if projects is None:
        projects = _projects_of(document.callers) or DEFAULT_PROJECTS
    compiler = _Compiler(file, projects)
    callers: dict[str, CallerPolicy] = {}
    for index, caller in enumerate(document.callers):
        place: Location = ("callers", index)
        if caller.id in callers:
            raise file.error((*place, "id"), f"{caller.id} stands twice; put its entries under one caller")
        callers[caller.id] = compiler.caller(place, caller)
        compiler.check_roles(place, caller, roles)
    return Policy(_revision(file.content), roles, callers)


def _compile_while_reading(path: Path, content: bytes, projects: frozenset[str]) -> Policy | None:
    """The same policy as `compile_policy` makes of this content; None where that has something to say about it."""
    compiler = _Compiler(Document(path, content, None), projects)

    def take(name: str, item: Any) -> Any:  # noqa: ANN401 - YAML
        return compiler.caller((), CallerEntry.model_validate(item)) if name == "callers" else item

    try:
        data = parse_plain(content.decode(), MOST_REPEATED, take)
        read = data.get("callers") if isinstance(data, dict) else None
        if not isinstance(read, list) or not all(isinstance(caller, CallerPolicy) for caller in read):
            return None
        document = PolicyFile.model_validate({**data, "callers": []})
        roles = {name: _role(compiler.file, name, role) for name, role in document.roles.items()}
    except (Unsure, UnicodeDecodeError, ValidationError, ConfigError):
        return None
    # The roles may stand below the callers, so callers are held against them at the end.
    asked = {(e.roles, e.powers, e.default_ttl) for caller in read for e in caller.entries}
    if any(_role_problem(name, powers, ttl, roles) for names, powers, ttl in asked for name in names):
        return None
    callers = {caller.id: caller for caller in read}
    return Policy(_revision(content), roles, callers) if len(callers) == len(read) else None


def _revision(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _named(path: Path, content: bytes) -> frozenset[str]:
    """The projects that a policy names. Raises ConfigError."""
    named: set[str] = set()

    def take(name: str, item: Any) -> Any:  # noqa: ANN401 - YAML
        if name == "callers":
            named.update(_projects_of([CallerEntry.model_validate(item)]))
            return {}
        return item

    try:
        data = parse_plain(content.decode(), MOST_REPEATED, take)
        if all(item == {} for item in data["callers"]):
            return frozenset(named)
    except (Unsure, UnicodeDecodeError, ValidationError, KeyError, TypeError):
        pass  # to be read as a whole, below
    return _projects_of(Document.parse(path, content).validated(PolicyFile).callers)


def _projects_of(callers: Iterable[CallerEntry]) -> frozenset[str]:
    lists = [
        projects
        for caller in callers
        for projects in (*(a.projects for a in caller.allow), caller.verify.webhooks, caller.verify.tokens)
    ]
    return frozenset(name for names in lists if names != "any" for name in names)


def _role(file: Document, name: str, role: Any) -> Grants:  # noqa: ANN401 - an instance of Role
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


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Compiles callers of one file; what is equal in several of them is one object."""

    file: Document
    projects: frozenset[str]
    pool: dict[Hashable, Any] = field(default_factory=dict)

    def one(self, value: T) -> T:
        """The one object that stands for all that equal this one."""
        known: T = self.pool.setdefault(value, value)
        return known

    def caller(self, place: Location, caller: CallerEntry) -> CallerPolicy:
        """A caller's policy, but for what `check_roles` finds. Raises ConfigError."""
        entries = tuple(self._entry((*place, "allow", number), allow) for number, allow in enumerate(caller.allow))
        names = {entry.name for entry in entries}
        if len(names) != len(entries):
            raise self.file.error((*place, "allow"), "two entries have one name; decisions couldn't tell them apart")
        verify = caller.verify
        return CallerPolicy(
            caller.id,
            self.one(entries),
            self._projects((*place, "verify", "webhooks"), verify.webhooks),
            self._projects((*place, "verify", "tokens"), verify.tokens),
            self.one(caller_limits(self.file, (*place, "limits"), caller.limits, self.projects)),
        )

    def _entry(self, place: Location, allow: Allow) -> AllowEntry:
        entry = AllowEntry(
            name=self.one(allow.name or f"allow[{place[-1]}]"),
            projects=self._projects((*place, "projects"), allow.projects),
            roles=self.one(frozenset(allow.roles)),
            grants=ORDINARY_GRANTS if allow.grants == "any" else self.one(frozenset(allow.grants)),
            powers=self.one(frozenset(allow.powers)),
            rooms=self._matcher(allow.rooms),
            identities=self._matcher(allow.identities),
            default_ttl=self.one(allow.ttl.default),
            max_ttl=self.one(allow.ttl.max),
        )
        if not entry.rooms.any and (unscoped := entry.powers & UNSCOPED_POWERS):
            names = ", ".join(sorted(unscoped))
            message = f"LiveKit doesn't scope {names} to a room; write `rooms: any` beside it"
            raise self.file.error((*place, "powers"), message)
        if entry.default_ttl > entry.max_ttl:
            message = f"the default ({entry.default_ttl} s) is longer than the max ({entry.max_ttl} s); write both"
            raise self.file.error((*place, "ttl"), message)
        if entry.max_ttl > TTL_LIMIT and "long_ttl" not in entry.powers:
            raise self.file.error((*place, "ttl", "max"), "over 1h needs the power long_ttl")
        return self.one(entry)

    def check_roles(self, place: Location, caller: CallerEntry, roles: Mapping[str, Grants]) -> None:
        """Every role that an entry names exists and could be permitted by it. Raises ConfigError."""
        for number, allow in enumerate(caller.allow):
            powers = frozenset(allow.powers)
            for index, name in enumerate(allow.roles):
                if problem := _role_problem(name, powers, allow.ttl.default, roles):
                    what, message = problem
                    here: Location = ("roles", index) if what == "roles" else (what,)
                    raise self.file.error((*place, "allow", number, *here), message)

    def _projects(self, place: Location, named: Literal["any"] | list[str]) -> frozenset[str]:
        if named == "any":
            return self.projects
        for index, name in enumerate(named):
            if name not in self.projects:
                known = ", ".join(sorted(self.projects)) or "none"
                raise self.file.error((*place, index), f'there is no project "{name}"; configured are: {known}')
        return self.one(frozenset(named))

    def _matcher(self, rules: Literal["any"] | list[Matching]) -> Matcher:
        if rules == "any":
            return self.one(Matcher(any=True))
        exact = self.one(frozenset(rule.exact for rule in rules if rule.exact is not None))
        prefixes = self.one(tuple(rule.prefix for rule in rules if rule.prefix is not None))
        return self.one(Matcher(exact=exact, prefixes=prefixes))


def _role_problem(
    name: str, powers: frozenset[str], default_ttl: int, roles: Mapping[str, Grants]
) -> tuple[str, str] | None:
    """The field at fault and why an entry couldn't permit this role."""
    if name not in roles:
        return "roles", f'there is no role "{name}"; define it under roles'
    if missing := needs(roles[name]).powers - powers:
        return "roles", f'role "{name}" needs powers that the entry doesn\'t list: {", ".join(sorted(missing))}'
    video = roles[name].video
    if video and video.agent and default_ttl > AGENT_TTL_LIMIT and "long_ttl" not in powers:
        return "ttl", f'role "{name}" has agent: a ttl over 10m needs the power long_ttl'
    return None
