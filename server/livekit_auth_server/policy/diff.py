"""What a change of policy alters, caller by caller: by what is decided, not by what is written.

Guarantees: every field of a caller and of an entry is compared; roles are compared by what they grant, at each caller
that may use them; entries in another order differ only where both permit some request, so that another one decides; two
policies that decide alike have no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from livekit_auth_server.core.grants import needs
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy
from livekit_auth_server.core.refusal import Reason
from livekit_auth_server.policy.changes import Change, Name, OneValue, ProjectChange, RolesOf, Rule, Side, rules_of
from livekit_auth_server.policy.explain import limit_texts, matcher_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from livekit_auth_server.core.policy import Matcher, Policy
    from livekit_auth_server.policy.changes import Kind, Roles

Pair = tuple[AllowEntry, AllowEntry]


@dataclass(frozen=True, slots=True)
class CallerDiff:
    """What changes for a caller: one that is new, one that is gone, or one that both policies list."""

    caller: str
    kind: Literal["added", "removed", "changed"]
    changes: tuple[Change, ...]


def diff(old: Policy, new: Policy) -> list[CallerDiff]:
    """The callers for which something changes, in the order of their ids."""
    edited = frozenset(name for name in old.roles.keys() | new.roles if old.roles.get(name) != new.roles.get(name))
    found = []
    for name in sorted(old.callers.keys() | new.callers):
        before, after = old.callers.get(name), new.callers.get(name)
        if before is not None and after is not None:
            if before == after and (not edited or all(edited.isdisjoint(entry.roles) for entry in after.entries)):
                continue
            changes = tuple(_differences(_CALLER, "", Side(before, old.roles), Side(after, new.roles)))
            if changes:
                found.append(CallerDiff(name, "changed", changes))
        elif after is not None:
            found.append(CallerDiff(name, "added", _whole("gained", Side(after, new.roles))))
        elif before is not None:
            found.append(CallerDiff(name, "removed", _whole("lost", Side(before, old.roles))))
    return found


def _whole(kind: Kind, caller: Side) -> tuple[Change, ...]:
    """All that a caller has, which is new or gone."""
    return tuple(change for name, rule in _CALLER.items() for change in rule.whole(kind, caller.of(name)))


def _matched(
    old: Sequence[AllowEntry],
    new: Sequence[AllowEntry],
    old_roles: Roles,
    new_roles: Roles,
) -> tuple[list[Pair], list[AllowEntry], list[AllowEntry]]:
    """Entries that belong together, in the old order: of one name and meaning, else of one of the two; lost; gained."""
    left = list(new)
    partner: dict[str, AllowEntry] = {}

    def same(before: AllowEntry, after: AllowEntry) -> bool:
        return _meaning(before, old_roles) == _meaning(after, new_roles)

    for fits in (
        lambda before, after: before.name == after.name and same(before, after),
        same,
        lambda before, after: before.name == after.name,
    ):
        for before in old:
            if before.name not in partner:
                after = next((entry for entry in left if fits(before, entry)), None)
                if after is not None:
                    partner[before.name] = after
                    left.remove(after)
    pairs = [(before, partner[before.name]) for before in old if before.name in partner]
    return pairs, [before for before in old if before.name not in partner], left


def _meaning(entry: AllowEntry, roles: Roles) -> tuple[object, ...]:
    """What an entry permits, without its name."""
    return tuple(rule.meaning(getattr(entry, name), roles) for name, rule in _ENTRY.items())


def _differences(rules: Mapping[str, Rule], entry: str, old: Side, new: Side) -> Iterator[Change]:
    """The changes of every field of two callers or two entries."""
    for name, rule in rules.items():
        yield from rule.changes(entry, rule.compared(old, name), rule.compared(new, name))


@dataclass(frozen=True, slots=True)
class _Entries(Rule):
    """The entries of a caller: each new one is compared with the old one that it belongs to."""

    def changes(self, _entry: str, old: Side, new: Side) -> Iterator[Change]:
        """Changes in entries that both have, and entries that are lost, gained or in another order."""
        pairs, lost, gained = _matched(old.value, new.value, old.roles, new.roles)
        for before, after in pairs:
            yield from _differences(_ENTRY, after.name, Side(before, old.roles), Side(after, new.roles))
        yield from (_whole_entry("lost", entry, old.roles) for entry in lost)
        yield from (_whole_entry("gained", entry, new.roles) for entry in gained)
        yield from _order(pairs, new.value, new.roles)

    def whole(self, kind: Kind, side: Side) -> Iterator[Change]:
        """Each entry as a whole."""
        return (_whole_entry(kind, entry, side.roles) for entry in side.value)


@dataclass(frozen=True, slots=True)
class _DefaultProject(OneValue):
    """The project of a token request that names none: projects change it as well as the field does."""

    def compared(self, owner: Side, _field: str) -> Side:
        """What such a request gets; nothing for a caller without projects, whose entries say so."""
        caller: CallerPolicy = owner.value
        return Side((caller.project_of("") or Reason.PROJECT_REQUIRED) if caller.projects else "", owner.roles)

    def changes(self, entry: str, old: Side, new: Side) -> Iterator[Change]:
        """Gained where the request was denied, lost where it is denied now."""
        if old.value == new.value or not (old.value and new.value):
            return
        kind: Kind = "changed"
        if Reason.PROJECT_REQUIRED in (old.value, new.value):
            kind = "lost" if new.value == Reason.PROJECT_REQUIRED else "gained"
        yield ProjectChange(kind, entry, self.label, new.value, old.value)


_ENTRY = rules_of(
    AllowEntry,
    {
        "name": Name("name", lambda name: (name,)),
        "projects": Rule("projects", sorted),
        "roles": RolesOf("roles", sorted),
        "grants": Rule("grants", sorted),
        "powers": Rule("powers", sorted),
        "rooms": Rule("rooms", matcher_rules),
        "identities": Rule("identities", matcher_rules),
        "default_ttl": OneValue("ttl.default", lambda ttl: (f"{ttl} s",)),
        "max_ttl": OneValue("ttl.max", lambda ttl: (f"{ttl} s",), "at most {}"),
    },
)
_CALLER = rules_of(
    CallerPolicy,
    {
        "id": Name("id", lambda name: (name,)),
        "entries": _Entries("entry", lambda entries: [entry.name for entry in entries]),
        "verify_webhooks": Rule("verify.webhooks", sorted),
        "verify_tokens": Rule("verify.tokens", sorted),
        "limits": OneValue("limits", limit_texts),
        "read_decisions": Rule("read_decisions", sorted),
        "default_project": _DefaultProject("default_project", lambda name: (name,)),
    },
)


def _whole_entry(kind: Kind, entry: AllowEntry, roles: Roles) -> Change:
    """An entry as a whole, with what its roles grant."""
    parts: dict[str, list[str]] = {}
    for name, rule in _ENTRY.items():
        parts.setdefault(rule.label.partition(".")[0], []).extend(rule.shown(getattr(entry, name), roles))
    text = "; ".join(f"{name} {', '.join(values)}" for name, values in parts.items() if values)
    return Change(kind, entry.name, "entry", f"[{text}]")


def _order(pairs: Sequence[Pair], new: Sequence[AllowEntry], roles: Roles) -> Iterator[Change]:
    """Entries that have changed places and could both permit a request."""
    places = {entry.name: place for place, entry in enumerate(new)}
    for (_, first), (_, second) in combinations(pairs, 2):
        if places[first.name] > places[second.name] and _overlap(first, second, roles):
            yield Change("changed", second.name, "order", f"before {first.name}", f"after {first.name}")


def _overlap(one: AllowEntry, other: AllowEntry, roles: Roles) -> bool:
    """Whether both entries could permit one request."""
    if one.projects.isdisjoint(other.projects):
        return False
    rooms, identities = _meet(one.rooms, other.rooms), _meet(one.identities, other.identities)
    if one.grants and other.grants:  # spelled-out grants that need neither room nor identity are many
        return True
    asked = [needs(roles[name]) for name in one.roles & other.roles]
    return any((rooms or not need.room) and (identities or not need.identity) for need in asked)


def _meet(one: Matcher, other: Matcher) -> bool:
    """Whether some value matches both."""
    if one.any or other.any:
        return bool((one.any or one.exact or one.prefixes) and (other.any or other.exact or other.prefixes))
    return (
        any(other.covers(value) for value in one.exact)
        or any(one.covers(value) for value in other.exact)
        or any(a.startswith(b) or b.startswith(a) for a in one.prefixes for b in other.prefixes)
    )
