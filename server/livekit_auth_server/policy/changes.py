"""How each field of a caller or an entry is compared between two policies, and in which words.

Guarantees: `rules_of` takes no table that leaves a field out, so a new field can't change without being told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from livekit_auth_server.core.grants import GROUPS, Grants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Kind = Literal["gained", "lost", "changed"]
Roles = Mapping[str, Grants]


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


class ProjectChange(Change):
    """What a token request that names no project gets: a project, or the reason of a denial."""

    def __str__(self) -> str:
        return f"{_SIGNS[self.kind]} a request without a project: was {self.was}, now {self.value}"


@dataclass(frozen=True, slots=True)
class Side:
    """A value of the old or the new policy, and the roles of that policy."""

    value: Any
    roles: Roles

    def of(self, name: str) -> Side:
        """One of its fields."""
        return Side(getattr(self.value, name), self.roles)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one field is compared, and what the policy file calls it. `texts` are its values in words."""

    label: str
    texts: Callable[[Any], Sequence[str]]

    def compared(self, owner: Side, field: str) -> Side:
        """What the rule compares of a caller or an entry: its field."""
        return owner.of(field)

    def shown(self, value: Any, _roles: Roles) -> Sequence[str]:  # noqa: ANN401 - a field's
        """The values in the words of a new or lost entry."""
        return self.texts(value)

    def meaning(self, value: Any, roles: Roles) -> object:  # noqa: ANN401 - a field's
        """What it permits: the same for two values that permit the same."""
        return tuple(self.shown(value, roles))

    def changes(self, entry: str, old: Side, new: Side) -> Iterator[Change]:
        """Values that are gained and lost one by one."""
        before, after = set(self.texts(old.value)), set(self.texts(new.value))
        yield from (Change("lost", entry, self.label, value) for value in sorted(before - after))
        yield from (Change("gained", entry, self.label, value) for value in sorted(after - before))

    def whole(self, kind: Kind, side: Side) -> Iterator[Change]:
        """All of it, of a caller that is new or gone."""
        return (Change(kind, "", self.label, text) for text in self.shown(side.value, side.roles))


@dataclass(frozen=True, slots=True)
class OneValue(Rule):
    """A field whose value changes as a whole. `shown_as` is how a new or lost entry shows it."""

    shown_as: str = "{}"

    def shown(self, value: Any, _roles: Roles) -> Sequence[str]:  # noqa: ANN401 - a field's
        """The value, if there is one."""
        text = ", ".join(self.texts(value))
        return [self.shown_as.format(text)] if text else []

    def changes(self, entry: str, old: Side, new: Side) -> Iterator[Change]:
        """The change, if there is one."""
        was, value = (", ".join(self.texts(side.value)) for side in (old, new))
        if was != value:
            yield Change("changed", entry, self.label, value, was)


@dataclass(frozen=True, slots=True)
class Name(OneValue):
    """The name of an entry, which permits nothing and stands before its values."""

    def shown(self, _value: str, _roles: Roles) -> Sequence[str]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class RolesOf(Rule):
    """Roles, which are what they grant."""

    def shown(self, value: frozenset[str], roles: Roles) -> Sequence[str]:
        """Each role with its grants."""
        return [f"{role} ({', '.join(_granted(roles[role]))})" for role in sorted(value)]

    def meaning(self, value: frozenset[str], roles: Roles) -> object:
        """Each role with its grants."""
        return frozenset((name, roles[name]) for name in value)

    def changes(self, entry: str, old: Side, new: Side) -> Iterator[Change]:
        """Roles that are gained and lost, and grants that change in the others."""
        yield from Rule.changes(self, entry, old, new)
        for role in sorted(old.value & new.value):
            yield from _of_role(entry, role, old.roles[role], new.roles[role])


def rules_of(of: type[Any], rules: dict[str, Rule]) -> dict[str, Rule]:
    """The rules of a class by field. Raises TypeError for a field without a rule: no change of it would be told.

    Fields that the class makes of others need none.
    """
    named = {field.name for field in fields(of) if field.init}
    if wrong := named ^ rules.keys():
        raise TypeError(f"policy.diff needs one rule for each field of {of.__name__}: {', '.join(sorted(wrong))}")
    return rules


def _of_role(entry: str, role: str, old: Grants, new: Grants) -> Iterator[Change]:
    if old == new:
        return
    before, after = dict(_flat(old)), dict(_flat(new))
    for grant in sorted(before.keys() | after):
        was, value = before.get(grant), after.get(grant)
        if was == value or not (was or value or (grant in before and grant in after)):
            continue
        if {was, value} <= _FLAGS and bool(was) != bool(value):
            yield Change("gained" if value else "lost", entry, f"role {role}", grant)
        else:  # a text, or a flag that says false in one policy and nothing in the other
            yield Change("changed", entry, f"role {role} {grant}", _text(value), _text(was))


def _flat(grants: Grants) -> Iterator[tuple[str, object]]:
    """Each grant as "video.room_join" and its value, and each group that there is."""
    for group in GROUPS:
        value = getattr(grants, group)
        if value is not None:
            yield group, True
            yield from ((f"{group}.{f.name}", getattr(value, f.name)) for f in fields(value))


_FLAGS = {True, False, None}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return "false" if value is False else str(value or "")


def _granted(grants: Grants) -> Iterator[str]:
    for name, value in _flat(grants):
        if value and "." in name:
            yield name if value is True else f"{name}={_text(value)}"
