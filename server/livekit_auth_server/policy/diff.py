"""What a change of policy alters, caller by caller: by what is decided, not by what is written.

Guarantees: roles are compared by what they grant, at each caller that may use them; entries in another order differ
only where both permit some request, so that another one decides; two policies that decide alike have no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from livekit_auth_server.core.grants import Grants, needs
from livekit_auth_server.policy.explain import limit_texts, matcher_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Matcher, Policy

Kind = Literal["gained", "lost", "changed"]
Pair = tuple["AllowEntry", "AllowEntry"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a caller gains, loses or has differently. `entry` is empty for what isn't an entry's."""

    kind: Kind
    entry: str
    field: str
    value: str
    was: str = ""

    def __str__(self) -> str:
        place = f"{self.entry}: " if self.entry else ""
        value = f"{self.was or 'none'} -> {self.value or 'none'}" if self.kind == "changed" else self.value
        return f"{_SIGNS[self.kind]} {place}{self.field} {value}"


_SIGNS = {"gained": "+", "lost": "-", "changed": "~"}


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
            changes = tuple(_of_caller(before, after, old.roles, new.roles))
            if changes:
                found.append(CallerDiff(name, "changed", changes))
        elif after is not None:
            found.append(CallerDiff(name, "added", tuple(_whole("gained", after, new.roles))))
        elif before is not None:
            found.append(CallerDiff(name, "removed", tuple(_whole("lost", before, old.roles))))
    return found


def _of_caller(
    old: CallerPolicy, new: CallerPolicy, old_roles: Mapping[str, Grants], new_roles: Mapping[str, Grants]
) -> Iterator[Change]:
    pairs, lost, gained = _matched(old.entries, new.entries, old_roles, new_roles)
    for before, after in pairs:
        yield from _of_entry(before, after, old_roles, new_roles)
    yield from (_entry("lost", entry, old_roles) for entry in lost)
    yield from (_entry("gained", entry, new_roles) for entry in gained)
    yield from _order(pairs, new.entries, new_roles)
    yield from _sets("", "verify.webhooks", old.verify_webhooks, new.verify_webhooks)
    yield from _sets("", "verify.tokens", old.verify_tokens, new.verify_tokens)
    if limit_texts(old.limits) != limit_texts(new.limits):
        yield Change("changed", "", "limits", ", ".join(limit_texts(new.limits)), ", ".join(limit_texts(old.limits)))


def _matched(
    old: Sequence[AllowEntry],
    new: Sequence[AllowEntry],
    old_roles: Mapping[str, Grants],
    new_roles: Mapping[str, Grants],
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


def _meaning(entry: AllowEntry, roles: Mapping[str, Grants]) -> tuple[object, ...]:
    """What an entry permits, without its name."""
    return (
        entry.projects,
        frozenset((name, roles[name]) for name in entry.roles),
        entry.grants,
        entry.powers,
        frozenset(matcher_rules(entry.rooms)),
        frozenset(matcher_rules(entry.identities)),
        entry.default_ttl,
        entry.max_ttl,
    )


def _of_entry(
    old: AllowEntry, new: AllowEntry, old_roles: Mapping[str, Grants], new_roles: Mapping[str, Grants]
) -> Iterator[Change]:
    name = new.name
    if old.name != name:
        yield Change("changed", name, "name", name, old.name)
    for what in ("projects", "roles", "grants", "powers"):
        yield from _sets(name, what, getattr(old, what), getattr(new, what))
    for role in sorted(old.roles & new.roles):
        yield from _of_role(name, role, old_roles[role], new_roles[role])
    for what in ("rooms", "identities"):
        yield from _sets(name, what, matcher_rules(getattr(old, what)), matcher_rules(getattr(new, what)))
    for what, before, after in (
        ("ttl.default", old.default_ttl, new.default_ttl),
        ("ttl.max", old.max_ttl, new.max_ttl),
    ):
        if before != after:
            yield Change("changed", name, what, f"{after} s", f"{before} s")


def _of_role(entry: str, role: str, old: Grants, new: Grants) -> Iterator[Change]:
    if old == new:
        return
    before, after = dict(_flat(old)), dict(_flat(new))
    for grant in sorted(before.keys() | after):
        was, value = before.get(grant, False), after.get(grant, False)
        if was == value:
            continue
        if isinstance(was, bool) and isinstance(value, bool):
            yield Change("gained" if value else "lost", entry, f"role {role}", grant)
        else:
            yield Change("changed", entry, f"role {role} {grant}", _text(value), _text(was))


def _flat(grants: Grants) -> Iterator[tuple[str, object]]:
    """Each grant as "video.room_join" and its value, and each group that there is."""
    for group in fields(Grants):
        value = getattr(grants, group.name)
        if value is not None:
            yield group.name, True
            yield from ((f"{group.name}.{f.name}", getattr(value, f.name)) for f in fields(value))


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value or "")


def _sets(entry: str, what: str, old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    before, after = set(old), set(new)
    yield from (Change("lost", entry, what, value) for value in sorted(before - after))
    yield from (Change("gained", entry, what, value) for value in sorted(after - before))


def _whole(kind: Literal["gained", "lost"], caller: CallerPolicy, roles: Mapping[str, Grants]) -> Iterator[Change]:
    """All that a caller has, which is new or gone."""
    yield from (_entry(kind, entry, roles) for entry in caller.entries)
    for what, projects in (("verify.webhooks", caller.verify_webhooks), ("verify.tokens", caller.verify_tokens)):
        yield from (Change(kind, "", what, project) for project in sorted(projects))
    if caller.limits:
        yield Change(kind, "", "limits", ", ".join(limit_texts(caller.limits)))


def _entry(kind: Kind, entry: AllowEntry, roles: Mapping[str, Grants]) -> Change:
    """An entry as a whole, with what its roles grant."""
    granted = [f"{role} ({', '.join(_granted(roles[role]))})" for role in sorted(entry.roles)]
    parts = {
        "projects": sorted(entry.projects),
        "roles": granted,
        "grants": sorted(entry.grants),
        "powers": sorted(entry.powers),
        "rooms": matcher_rules(entry.rooms),
        "identities": matcher_rules(entry.identities),
        "ttl": [f"{entry.default_ttl} s", f"at most {entry.max_ttl} s"],
    }
    text = "; ".join(f"{name} {', '.join(values)}" for name, values in parts.items() if values)
    return Change(kind, entry.name, "entry", f"[{text}]")


def _granted(grants: Grants) -> Iterator[str]:
    for name, value in _flat(grants):
        if value and "." in name:
            yield name if value is True else f"{name}={_text(value)}"


def _order(pairs: Sequence[Pair], new: Sequence[AllowEntry], roles: Mapping[str, Grants]) -> Iterator[Change]:
    """Entries that have changed places and could both permit a request."""
    places = {entry.name: place for place, entry in enumerate(new)}
    for (_, first), (_, second) in combinations(pairs, 2):
        if places[first.name] > places[second.name] and _overlap(first, second, roles):
            yield Change("changed", second.name, "order", f"before {first.name}", f"after {first.name}")


def _overlap(one: AllowEntry, other: AllowEntry, roles: Mapping[str, Grants]) -> bool:
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
