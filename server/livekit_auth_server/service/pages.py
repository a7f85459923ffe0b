"""Pages of a list (AIP-158): how much goes on one, and the token that says where the next begins.

Guarantees: a token is taken only by the method, for the caller and under the policy revision that it was made for, and
only in the form in which it was made. It isn't secret and isn't signed: it holds a position in what the caller may read
from the beginning anyway, so a made-up one shows nothing else.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.validation import KIB

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.method import AnyMethod

MAX_VALUES = 1000
MAX_BYTES = KIB * KIB

_VERSION = 1
_FORM = struct.Struct(">B16sII")  # version, what it is bound to, position


class Position(NamedTuple):
    """Where a page begins: at a value of an item. Both are counted from 0; a list without items within has one item."""

    item: int
    value: int


BEGIN = Position(0, 0)


@dataclass(slots=True)
class Room:
    """What still goes on a page. The value that fills it may be over the bytes."""

    values: int
    bytes: int = MAX_BYTES

    @classmethod
    def of(cls, page_size: int) -> Room:
        """The room of a page for this `page_size`, which isn't negative."""
        return cls(min(page_size or MAX_VALUES, MAX_VALUES))

    def full(self) -> bool:
        """Whether the page ends here. A new page isn't full."""
        return self.values <= 0 or self.bytes <= 0

    def take(self, size: int) -> None:
        """Counts a value of this many bytes."""
        self.values -= 1
        self.bytes -= size


def page_token(method: AnyMethod, caller: ListedCaller, position: Position | None) -> str:
    """The token of the page that begins there; empty for None, which is the end."""
    if position is None:
        return ""
    return urlsafe_b64encode(_FORM.pack(_VERSION, _bound_to(method, caller), *position)).rstrip(b"=").decode()


def position_of(method: AnyMethod, caller: ListedCaller, token: str) -> Position:
    """Where the token's page begins; the beginning for an empty token. The method checks that its list goes so far.

    Raises PAGE_TOKEN_INVALID.
    """
    if not token:
        return BEGIN
    try:
        _, _, item, value = _FORM.unpack(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, struct.error):
        raise invalid_token() from None
    position = Position(item, value)
    if position == BEGIN or page_token(method, caller, position) != token:
        raise invalid_token()
    return position


def invalid_token() -> Refusal:
    """The refusal of a token that isn't one of this list."""
    message = "the page token isn't of this method and the policy in force; begin again without one"
    return Refusal(Reason.PAGE_TOKEN_INVALID, message)


def _bound_to(method: AnyMethod, caller: ListedCaller) -> bytes:
    text = f"{method.name} {caller.state_policy.revision} {caller.policy.id}"
    return hashlib.sha256(text.encode()).digest()[:16]
