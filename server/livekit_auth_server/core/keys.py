"""API keys and the projects that they belong to.

Guarantees: a secret shows in no repr, no string, no pickle and no exception; key ids are unique across projects, so
that a token's "iss" names one key; the first active key of a project signs, every key but a revoked one verifies.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, NoReturn

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROJECT_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""The form of a project's name, as a regular expression for the whole of it."""


class Secret:
    """Bytes that don't show. `sign` and `fits` use them; `exposed` is for the self-check's child alone."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __len__(self) -> int:
        return len(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can't be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret has no state to show")

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA256 of the message (RFC 2104): 32 bytes."""
        return hmac.digest(self._value, message, "sha256")

    def fits(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is the message's, in constant time."""
        return hmac.compare_digest(self.sign(message), signature)

    def exposed(self) -> bytes:
        """The bytes themselves. Only selfcheck/ calls this, to hand them to livekit-api in a process of its own."""
        return self._value


class KeyState(StrEnum):
    """What a key may do."""

    ACTIVE = "active"
    VERIFY_ONLY = "verify-only"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A LiveKit API key. `not_before` and `not_after` are seconds since the epoch; None is no bound.

    `place` is where it was read, such as "keys.yaml:3".
    """

    id: str
    secret: Secret
    state: KeyState = KeyState.ACTIVE
    not_before: int | None = None
    not_after: int | None = None
    place: str = field(default="", compare=False)

    def may_sign(self, now: int) -> bool:
        """Whether it signs at this time."""
        return self.state is KeyState.ACTIVE and self._in_time(now)

    def may_verify(self, now: int) -> bool:
        """Whether what it signed is accepted at this time."""
        return self.state is not KeyState.REVOKED and self._in_time(now)

    def _in_time(self, now: int) -> bool:
        after_start = self.not_before is None or now >= self.not_before
        return after_start and (self.not_after is None or now < self.not_after)

    @property
    def issuer_member(self) -> str:
        """The claim that names this key, as a JSON member."""
        return f'"iss":{encode_basestring_ascii(self.id)}'


@dataclass(frozen=True, slots=True)
class Project:
    """A LiveKit project: the url that clients connect to, and its keys in order of preference."""

    name: str
    url: str
    keys: tuple[ApiKey, ...]

    def signing_key(self, now: int) -> ApiKey:
        """The first key that may sign. Raises SIGNING_KEY_MISSING when there is none."""
        for key in self.keys:
            if key.may_sign(now):
                return key
        raise Refusal(Reason.SIGNING_KEY_MISSING, f'project "{self.name}" has no key that may sign now')


class KeySet:
    """All projects with their keys, by project name and by key id."""

    __slots__ = ("_by_key_id", "projects")

    def __init__(self, projects: Iterable[Project]) -> None:
        """Raises ValueError when two projects share a name or two keys an id."""
        by_name: dict[str, Project] = {}
        self._by_key_id: dict[str, tuple[Project, ApiKey]] = {}
        for project in projects:
            if project.name in by_name:
                raise ValueError(f'project "{project.name}" is listed twice')
            by_name[project.name] = project
            for key in project.keys:
                if (other := self._by_key_id.get(key.id)) is not None:
                    raise ValueError(_twice((project, key), other))
                self._by_key_id[key.id] = (project, key)
        self.projects: Mapping[str, Project] = by_name

    def verifies(self, key: ApiKey, project: str, now: int) -> bool:
        """Whether the project's tokens that this key signed are accepted. Another secret makes another key."""
        owner, held = self._by_key_id.get(key.id, (None, key))
        same = held is key or held.secret.fits(b"", key.secret.sign(b""))
        return owner is not None and owner.name == project and same and held.may_verify(now)

    def verifying_key(self, key_id: str, projects: frozenset[str], now: int) -> tuple[Project, ApiKey]:
        """The key with this id, if it may verify and belongs to one of the projects.

        Raises KEY_UNKNOWN, the same for a key that doesn't exist and for one of another project.
        """
        found = self._by_key_id.get(key_id)
        if found is not None and found[0].name in projects and found[1].may_verify(now):
            return found
        raise Refusal(Reason.KEY_UNKNOWN, "no key that you may verify with has the id in the token")


def _twice(*found: tuple[Project, ApiKey]) -> str:
    """Says where the duplicate id is, without the id: it may be a misplaced secret."""
    places = " and ".join(f'in project "{project.name}" ({key.place or "of no file"})' for project, key in found)
    return f"one key id stands {places}: key ids are unique across projects"
