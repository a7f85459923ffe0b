"""What is in force: policy, keys, identities and revocations, each replaced whole while calls are served.

Guarantees: a `State` never changes, so its holder sees parts that were in force together; each part is replaced by its
own method, which takes nothing else; each replacement makes a state with another version.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from livekit_auth_server.core.revocation import DenyList

if TYPE_CHECKING:
    from livekit_auth_server.core.identity import Identifier
    from livekit_auth_server.core.keys import KeySet
    from livekit_auth_server.core.policy import Policy
    from livekit_auth_server.service.shadow import Shadow


@dataclass(frozen=True, slots=True)
class State:
    """What was in force at one moment. `version` changes whenever a part is replaced."""

    policy: Policy
    keys: KeySet
    identifier: Identifier
    denied: DenyList = field(default_factory=DenyList)
    shadow: Shadow | None = None
    version: int = 0


class InForce:
    """The state in force now. Replace its parts on the event loop only: calls run there and read `state` once."""

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def state(self) -> State:
        """What is in force at this moment."""
        return self._state

    def replace_policy(self, policy: Policy) -> None:
        """Puts a policy in force."""
        self._put(replace(self._state, policy=policy))

    def replace_keys(self, keys: KeySet) -> None:
        """Puts the keys of all projects in force."""
        self._put(replace(self._state, keys=keys))

    def replace_identifier(self, identifier: Identifier) -> None:
        """Puts CA bundles in force, with the identifier that was made from them."""
        self._put(replace(self._state, identifier=identifier))

    def replace_deny_list(self, listed: DenyList) -> None:
        """Puts a deny-list in force. CRLs stay as they are."""
        self._put(replace(self._state, denied=self._state.denied.with_list(listed)))

    def replace_crls(self, revoked: DenyList) -> None:
        """Puts CRLs in force. The deny-list stays as it is."""
        self._put(replace(self._state, denied=self._state.denied.with_crls(revoked)))

    def replace_shadow(self, shadow: Shadow) -> None:
        """Compares decisions with this candidate policy from now on."""
        self._put(replace(self._state, shadow=shadow))

    def _put(self, state: State) -> None:
        self._state = replace(state, version=self._state.version + 1)
