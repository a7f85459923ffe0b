"""The lifecycle of the keys in a key file: added as verify-only, promoted, retired, removed.

Guarantees: the file changes in one step or not at all (keys.edited_file); no change takes away the last key that can
sign, or adds a second key to a file in which none can; a revoked key stays revoked; a secret is in no result and in no
error.
"""

from __future__ import annotations

import datetime as dt
import secrets
import string
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from livekit_auth_server.core.keys import ApiKey, KeyState
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.private_file import write_new
from livekit_auth_server.files.read import read_private
from livekit_auth_server.keys.edited_file import KeysEdit, RefusedError, check_unique, editing_keys, load
from livekit_auth_server.keys.keys_file import checked_key, made_up, made_up_secrets
from livekit_auth_server.keys.text_edits import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

EXPIRES_SOON = 30 * 24 * 3600  # seconds
NOTHING_TAKEN: Mapping[str, str] = MappingProxyType({})
_CHARACTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 43  # characters of 62: 256 bits, as LiveKit's own
_LONGEST_SHOWN = 31  # characters: a longer id may be a secret in the place of the id
_NEW = "the new key"


@dataclass(frozen=True, slots=True)
class Listed:
    """A key as it is shown. Times are ISO 8601 in UTC; `does` is "signs", "verifies" or "nothing" at this time."""

    id: str
    state: str
    not_before: str | None
    not_after: str | None
    does: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a command did, and the keys afterwards. `exported` is the file that has the new secret for LiveKit."""

    changed: bool
    id: str
    keys: tuple[Listed, ...]
    exported: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to add. `secret` is None to generate one; `export` then names the file for LiveKit."""

    id: str
    secret: bytes | None = field(default=None, repr=False)
    export: Path | None = None
    active: bool = False
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The keys of a file that loads, and warnings as (id, text); the id is empty for a warning about the file."""

    keys: tuple[Listed, ...]
    warnings: tuple[tuple[str, str], ...]


def listed(path: Path, now: int) -> tuple[Listed, ...]:
    """The keys of a file, in its order. Raises ConfigError."""
    return _shown(load(path, read_private(path)), now)


def check(path: Path, now: int, taken: Mapping[str, str] = NOTHING_TAKEN, within: int = EXPIRES_SOON) -> Report:
    """Loads a file as the server would. `within` is how soon an end is worth a warning, seconds. Raises ConfigError."""
    content = read_private(path)
    keys = load(path, content)
    check_unique(path, keys, taken)
    weak = made_up_secrets(path, content)
    found = [(shown_id(key.id), what) for key in keys for what in _worries(key, now, within, weak=key.id in weak)]
    if not _can_sign(keys, now):
        found.insert(0, ("", "no key can sign now, so no token can be issued: promote one"))
    return Report(_shown(keys, now), tuple(found))


def add(path: Path, new: NewKey, now: int, taken: Mapping[str, str] = NOTHING_TAKEN) -> Change:
    """Adds a key, verify-only or active. With `active`, active keys become verify-only.

    A generated secret is written to `new.export` before the key file changes, so that it can't be lost.
    `taken` has the key ids of other projects. Raises ConfigError and RefusedError.
    """
    secret, state = _secret(new), KeyState.ACTIVE if new.active else KeyState.VERIFY_ONLY
    start, end = _seconds(new.not_before), _seconds(new.not_after)
    if start is not None and end is not None and start >= end:
        raise RefusedError("not_after isn't after not_before: the key would never be valid")
    made = replace(checked_key(_NEW, new.id, secret), state=state, not_before=start, not_after=end)
    with editing_keys(path) as edit:
        if new.active:
            edit.demote_active()
        edit.append(made, Entry(new.id, secret.decode(), state, _iso(start) or "", _iso(end) or ""))
        edit.check(taken)
        if len(edit.keys) > 1:
            _must_sign(edit.keys, now)
        _save(edit, new.export, f"{new.id}: {secret.decode()}\n")
    warnings = ("the secret looks made up; leave --secret-file out to have one made",) if made_up(secret) else ()
    return _change(edit, new.id, now, str(new.export) if new.export else None, warnings)


def promote(
    path: Path, key_id: str, now: int, revoke: Sequence[str] = (), taken: Mapping[str, str] = NOTHING_TAKEN
) -> Change:
    """Makes a key the signing key. Active keys become verify-only, and those in `revoke` become revoked.

    Raises ConfigError and RefusedError.
    """
    if key_id in revoke:
        raise RefusedError("a key can't be promoted and revoked at once")
    with editing_keys(path) as edit:
        if edit.key(key_id).state is KeyState.REVOKED:
            raise RefusedError("the key is revoked, and can't be promoted again; add a new one")
        for other in revoke:
            edit.set_state(other, KeyState.REVOKED)
        edit.demote_active(but=key_id)
        edit.set_state(key_id, KeyState.ACTIVE)
        edit.check(taken)
        _must_sign(edit.keys, now)
        edit.save()
    return _change(edit, key_id, now)


def retire(
    path: Path, key_id: str, now: int, *, remove: bool = False, taken: Mapping[str, str] = NOTHING_TAKEN
) -> Change:
    """Makes a verify-only key revoked; with `remove` takes a revoked one out of the file.

    Raises ConfigError and RefusedError.
    """
    with editing_keys(path) as edit:
        state = edit.key(key_id).state
        if state is KeyState.ACTIVE:
            raise RefusedError("the key is active; promote another one first, so that some key can sign")
        if not remove:
            edit.set_state(key_id, KeyState.REVOKED)
        elif state is KeyState.REVOKED:
            edit.remove(key_id)
        else:
            raise RefusedError(
                "the key still verifies; retire it first, without --remove, and see that nobody needs it"
            )
        edit.check(taken)
        edit.save()
    return _change(edit, key_id, now)


def convert(path: Path, now: int, taken: Mapping[str, str] = NOTHING_TAKEN) -> Change:
    """Gives states to a file in LiveKit's form. As before, the first key signs and all verify. Raises ConfigError."""
    with editing_keys(path, to_convert=True) as edit:
        edit.convert()
        edit.check(taken)
        edit.save()
    return _change(edit, "", now)


def shown_id(key_id: str) -> str:
    """An id in a form that is safe to show."""
    return key_id if len(key_id) <= _LONGEST_SHOWN else f"(an id of {len(key_id)} characters)"


def new_id() -> str:
    """An id like those that LiveKit makes."""
    return "API" + _random(12)


def _save(edit: KeysEdit, export: Path | None, line: str) -> None:
    """Writes the secret for LiveKit first, and removes it again when the key file wasn't changed."""
    if export is None:
        edit.save()
        return
    if export.parent.resolve() / export.name == edit.file.new:
        raise ConfigError(export, "is where the new key file is written first; choose another name")
    write_new(export, line.encode())
    try:
        edit.save()
    except BaseException:
        if edit.file.untouched():  # else a key may be in it whose secret nobody else has
            export.unlink(missing_ok=True)
        raise


def _can_sign(keys: tuple[ApiKey, ...], now: int) -> bool:
    return any(key.may_sign(now) for key in keys)


def _must_sign(keys: tuple[ApiKey, ...], now: int) -> None:
    if not _can_sign(keys, now):
        raise RefusedError("no key of the file could sign then; promote, or add with --active, one that is valid now")


def _secret(new: NewKey) -> bytes:
    """The secret of a new key, generated or given. A given one must be a single word."""
    if new.secret is None:
        return _made_secret()
    secret = new.secret.rstrip(b"\r\n")
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        raise ConfigError(_NEW, "its secret isn't UTF-8 text") from None
    if not text.isprintable() or " " in text:
        raise ConfigError(_NEW, "its secret should stand alone, without its id, blanks or control characters")
    return secret


def _made_secret() -> bytes:
    while made_up(secret := _random(_SECRET_LENGTH).encode()):
        pass  # once in 100,000 times chance writes a word
    return secret


def _random(length: int) -> str:
    return "".join(secrets.choice(_CHARACTERS) for _ in range(length))


def _change(
    edit: KeysEdit, key_id: str, now: int, exported: str | None = None, warnings: tuple[str, ...] = ()
) -> Change:
    return Change(edit.changed, shown_id(key_id), _shown(edit.keys, now), exported, warnings)


def _shown(keys: tuple[ApiKey, ...], now: int) -> tuple[Listed, ...]:
    signer = next((key for key in keys if key.may_sign(now)), None)
    return tuple(
        Listed(
            shown_id(key.id),
            str(key.state),
            _iso(key.not_before),
            _iso(key.not_after),
            "signs" if key is signer else "verifies" if key.may_verify(now) else "nothing",
        )
        for key in keys
    )


def _worries(key: ApiKey, now: int, within: int, *, weak: bool) -> Iterator[str]:
    if key.state is KeyState.REVOKED:
        return
    if weak:
        yield "its secret looks made up: rotate to one that `keys add` makes"
    if key.not_before is not None and now < key.not_before:
        yield f"isn't valid before {_iso(key.not_before)}"
    if key.not_after is not None and now >= key.not_after:
        yield f"expired at {_iso(key.not_after)}: retire it"
    elif key.not_after is not None and now + within >= key.not_after:
        yield f"expires at {_iso(key.not_after)}: rotate before"


def _seconds(time: dt.datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
