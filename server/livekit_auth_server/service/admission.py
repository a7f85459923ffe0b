"""Who calls: what a transport knows of a call, whom that identifies, and what a handler is told.

Guarantees: a `ListedCaller` has a policy; a `Caller` belongs to one moment, and `renewed` gives it as of now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.core.identity import Identified, Identifier
    from livekit_auth_server.core.keys import KeySet
    from livekit_auth_server.core.policy import CallerPolicy, Policy
    from livekit_auth_server.service.shadow import Shadow


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a transport knows of a call: the peer's certificates in PEM, its address, and the headers it sent.

    `traceparent` and `tracestate` are the W3C's, `user_agent` is the client library's; all as they came.
    """

    leaf_pem: bytes
    chain_pem: bytes
    peer: str = ""
    traceparent: str = ""
    tracestate: str = ""
    user_agent: str = ""

    @property
    def host(self) -> str:
        """The peer's address without its port."""
        return self.peer.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller that was identified before its request is read. Its places and bytes count for `owner`.

    `identifier` is the one that identified it: another one, with other bundles, has to do it again.
    """

    owner: str
    listed: bool
    identified: Identified
    identifier: Identifier


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller and the state at one moment. `policy` is None for a caller that the policy doesn't list."""

    identified: Identified
    policy: CallerPolicy | None
    state_policy: Policy
    keys: KeySet
    now: int
    trace_id: str
    shadow: Shadow | None
    version: int
    again: Callable[[Caller], Caller] = field(compare=False, repr=False)

    def renewed(self) -> Self:
        """The caller as of this moment; itself if nothing was replaced and no second has passed.

        Raises what its next call would meet: CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED, CALLER_NOT_LISTED and so on.
        """
        caller: Any = self.again(self)
        return caller  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class ListedCaller(Caller):
    """A caller that the policy lists."""

    policy: CallerPolicy
