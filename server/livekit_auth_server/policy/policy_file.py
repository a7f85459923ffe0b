"""The policy file: YAML or JSON, checked by pydantic, compiled into core.policy. docs/policy.md describes it.

Guarantees: an unknown field, a duplicate key or caller, a role or project that doesn't exist, a power without its
conditions and text that no request could hold are errors with a line; a file that loads is complete.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from livekit_auth_server.config.limits import caller_limits
from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, UNSCOPED_POWERS, Grants, needs
from livekit_auth_server.core.policy import AGENT_TTL_LIMIT, TTL_LIMIT, AllowEntry, CallerPolicy, Matcher, Policy
from livekit_auth_server.files.document import Document
from livekit_auth_server.policy.models import Allow, CallerEntry, Matching, PolicyFile
from livekit_auth_server.service.convert import grants_message
from livekit_auth_server.service.validation import violations

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

    from livekit_auth_server.files.errors import Location

T = TypeVar("T", bound="Hashable")
DEFAULT_PROJECTS = frozenset({"default"})
"""What `any` stands for where projects are neither configured nor named."""


def load_policy(path: Path, projects: frozenset[str] | None) -> Policy:
    """Reads and compiles a policy. `projects` are the configured ones. Raises ConfigError.

    None, where they aren't known, takes any name; then `any` stands for those that the file names, or "default".
    """
    with _no_collection():
        return compile_policy(Document.read(path), projects)


def load_policies(paths: Sequence[Path], projects: frozenset[str] | None) -> list[Policy]:
    """Several policies to compare: where `projects` is None, `any` stands for those that any of them names."""
    files = [Document.read(path) for path in paths]
    if projects is None:
        projects = frozenset().union(*map(_named_projects, files)) or DEFAULT_PROJECTS
    return [compile_policy(file, projects) for file in files]


_LOADING = threading.Lock()
_loads: list[None] = []


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pauses the search for reference cycles, of which a policy has none.

    Each search walks everything that is loaded so far, 0.2 s for 10,000 callers, while no call is answered.
    """
    with _LOADING:  # policy and candidate load at the same time, in threads of their own
        _loads.append(None)
        gc.disable()
    try:
        yield
    finally:
        with _LOADING:
            _loads.pop()
            if not _loads:
                gc.enable()


def compile_policy(file: Document, projects: frozenset[str] | None) -> Policy:
    """Compiles a parsed policy. Raises ConfigError with a line."""
    form = file.validated(PolicyFile)
    roles = {name: _role(file, name, role) for name, role in form.roles.items()}
    if projects is None:
        projects = _named_projects(file) or DEFAULT_PROJECTS
    compiler = _Compiler(file, projects, roles, {name: needs(grants).powers for name, grants in roles.items()})
    callers: dict[str, CallerPolicy] = {}
    for place, entry in _callers(file):
        if entry.id in callers:
            raise file.error((*place, "id"), f"duplicate caller {entry.id}; put its entries under one caller")
        caller = compiler.caller(place, entry)
        callers[caller.id] = caller
    return Policy(_revision(file.content), roles, callers)


def _callers(file: Document) -> Iterator[tuple[Location, CallerEntry]]:
    """Each caller of a file that is a PolicyFile, and its place. Raises ConfigError.

    One at a time: the models of thousands would take more memory than all else.
    """
    for index in range(len(file.data["callers"])):
        place: Location = ("callers", index)
        yield place, file.validated(CallerEntry, place)


def _revision(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _named_projects(file: Document) -> frozenset[str]:
    """The projects that a policy names. Raises ConfigError."""
    file.validated(PolicyFile)
    lists: list[Literal["any"] | list[str]] = []
    for _, caller in _callers(file):
        lists += [allow.projects for allow in caller.allow]
        lists += [caller.verify.webhooks, caller.verify.tokens, caller.read_decisions]
        lists += [[caller.default_project]] if caller.default_project else []
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
    roles: Mapping[str, Grants]
    role_powers: Mapping[str, frozenset[str]]
    pool: dict[Hashable, Any] = field(default_factory=dict)

    def one(self, value: T) -> T:
        """The one object that stands for all that equal this one."""
        known: T = self.pool.setdefault(value, value)
        return known

    def caller(self, place: Location, caller: CallerEntry) -> CallerPolicy:
        """A caller's policy. Raises ConfigError."""
        entries = tuple(self._entry((*place, "allow", number), allow) for number, allow in enumerate(caller.allow))
        names = {entry.name for entry in entries}
        if len(names) != len(entries):
            raise self.file.error((*place, "allow"), "two entries have one name; decisions couldn't tell them apart")
        for number, allow in enumerate(caller.allow):
            self._check_roles((*place, "allow", number), allow)
        verify = caller.verify
        compiled = CallerPolicy(
            id=_copied(caller.id),
            entries=self.one(entries),
            verify_webhooks=self._projects((*place, "verify", "webhooks"), verify.webhooks),
            verify_tokens=self._projects((*place, "verify", "tokens"), verify.tokens),
            limits=self.one(caller_limits(self.file, (*place, "limits"), caller.limits, self.projects)),
            read_decisions=self._projects((*place, "read_decisions"), caller.read_decisions),
            default_project=self.one(caller.default_project or ""),
        )
        if compiled.default_project and compiled.default_project not in compiled.projects:
            known = ", ".join(sorted(compiled.projects)) or "none"
            message = f'"{compiled.default_project}" is in no allow entry of this caller; its projects are: {known}'
            raise self.file.error((*place, "default_project"), message)
        return compiled

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

    def _check_roles(self, place: Location, allow: Allow) -> None:
        """Every role that the entry names exists, and the entry could permit it. Raises ConfigError."""
        powers = frozenset(allow.powers)
        for index, name in enumerate(allow.roles):
            here = (*place, "roles", index)
            if name not in self.roles:
                raise self.file.error(here, f'there is no role "{name}"; define it under roles')
            if missing := self.role_powers[name] - powers:
                names = ", ".join(sorted(missing))
                raise self.file.error(here, f'role "{name}" needs powers that the entry doesn\'t list: {names}')
            video = self.roles[name].video
            if video and video.agent and allow.ttl.default > AGENT_TTL_LIMIT and "long_ttl" not in powers:
                message = f'role "{name}" has agent: a ttl over 10m needs the power long_ttl'
                raise self.file.error((*place, "ttl"), message)

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
        exact = self.one(frozenset(_copied(rule.exact) for rule in rules if rule.exact is not None))
        prefixes = self.one(tuple(_copied(rule.prefix) for rule in rules if rule.prefix is not None))
        return self.one(Matcher(exact=exact, prefixes=prefixes))


def _copied(text: str) -> str:
    """A copy, so that nothing of the policy lies among the data of the file, and the memory of that is given back."""
    return text.encode().decode()
