"""What a self-check is given: the roles and the keys in force. It holds secrets and goes over the child's stdin only.

Guarantees: `samples` makes the same list at both ends, so that a finding names its sample by number; a role is minted
once, whatever the number of callers that may have it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

from livekit_auth_server.core.grants import GROUPS, PARTICIPANT_KINDS, Grants, VideoGrants, needs
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Secret
from livekit_auth_server.core.policy import TokenRequest

if TYPE_CHECKING:
    from livekit_auth_server.core.policy import Policy

_AWKWARD = '"\\é\u2028\U0001f600</script>'  # what two JSON encoders could write differently
_JOIN = Grants(video=VideoGrants(room_join=True))


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """A key that isn't revoked, and its project. `label` names it without its id, which may be a misplaced secret."""

    project: str
    label: str
    key: ApiKey


@dataclass(frozen=True, slots=True)
class Sample:
    """A token to mint. `label` says what it stands for."""

    label: str
    grants: Grants
    request: TokenRequest


@dataclass(frozen=True, slots=True)
class Task:
    """The roles by name, the grants and powers that entries permit spelled out, and the keys."""

    roles: tuple[tuple[str, Grants], ...]
    spelled_out: frozenset[str]
    keys: tuple[CheckedKey, ...]

    @classmethod
    def of(cls, policy: Policy, keys: KeySet) -> Task:
        """What is to be checked of a policy and keys that are in force together."""
        entries = (entry for caller in policy.callers.values() for entry in caller.entries if entry.grants)
        checked = [
            CheckedKey(project.name, f'key {number} of project "{project.name}"', key)
            for project in keys.projects.values()
            for number, key in enumerate(project.keys, 1)
            if key.state is not KeyState.REVOKED
        ]
        spelled_out: set[str] = set()
        for entry in entries:
            spelled_out |= entry.grants | entry.powers
        return cls(tuple(policy.roles.items()), frozenset(spelled_out), tuple(checked))

    def encode(self) -> bytes:
        """The task as JSON, with the secrets."""
        keys = [(one.project, one.label, one.key.id, b64encode(one.key.secret.exposed()).decode()) for one in self.keys]
        return orjson.dumps({"roles": self.roles, "spelled_out": sorted(self.spelled_out), "keys": keys})

    @classmethod
    def decode(cls, data: bytes) -> Task:
        """The task that `encode` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        found = orjson.loads(data)
        roles = tuple((name, _grants(groups)) for name, groups in found["roles"])
        keys = tuple(
            CheckedKey(project, label, ApiKey(key_id, Secret(b64decode(secret))))
            for project, label, key_id, secret in found["keys"]
        )
        return cls(roles, frozenset(found["spelled_out"]), keys)

    def samples(self) -> list[Sample]:
        """A token for each role, for all that may be spelled out, and for each participant kind."""
        wanted = [(f'role "{name}"', grants) for name, grants in self.roles]
        if self.spelled_out:
            wanted.append(("spelled-out grants", _everything(self.spelled_out)))
        kinds = [*("standard" for _ in wanted), *PARTICIPANT_KINDS]
        wanted += [(f'participant kind "{kind}"', _JOIN) for kind in PARTICIPANT_KINDS]
        return [_sample(label, grants, kind) for (label, grants), kind in zip(wanted, kinds, strict=True)]


def _sample(label: str, grants: Grants, kind: str) -> Sample:
    """A token with every text that a request can hold."""
    request = TokenRequest(
        access=grants,
        room=f"selfcheck-{_AWKWARD}" if needs(grants).carries_room else "",
        identity=f"selfcheck-{_AWKWARD}",
        name=_AWKWARD,
        metadata=f'{{"note": "{_AWKWARD}"}}',
        attributes=(("first", _AWKWARD), ("second", "")),
        kind=kind,
        room_preset="selfcheck",
    )
    return Sample(label, grants, request)


def _everything(permitted: frozenset[str]) -> Grants:
    """Every permitted grant, each with a value that a token has to carry."""
    groups: dict[str, Any] = {}
    for name, cls in GROUPS.items():
        if name != "video" and name not in permitted:
            continue
        members = [f for f in fields(cls) if name != "video" or f.name in permitted]
        groups[name] = cls(**{f.name: _value(f.default, f.metadata.get("values", ())) for f in members})
    return Grants(**groups)


def _value(default: object, values: tuple[str, ...]) -> object:
    """A value other than none for a grant with this default."""
    if isinstance(default, tuple):
        return values or (_AWKWARD,)
    return _AWKWARD if isinstance(default, str) else True


def _grants(groups: dict[str, Any]) -> Grants:
    """The grants that orjson wrote: lists instead of tuples, and a field that Grants computes."""
    made = {
        name: cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in group.items()})
        for name, cls in GROUPS.items()
        if (group := groups[name]) is not None
    }
    return Grants(**made)
