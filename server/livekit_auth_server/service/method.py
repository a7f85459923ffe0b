"""What the service has to know of an RPC, in one declaration, and the types of its handler.

Guarantees: nothing about a method is written anywhere else; a handler gets a request that keeps the contract's rules,
or bytes of which it can make only such requests, and a caller of the kind that the method is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from livekit_auth_server.service.admission import Caller, ListedCaller
from livekit_auth_server.service.decoding import growth
from livekit_auth_server.service.validation import Valid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from livekit_auth_server.core.policy import CallerPolicy, Permission
    from livekit_auth_server.service.costs import Projects

C = TypeVar("C", bound=Caller)
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A request as it came, for a handler that decodes it, and has it charged, once its turn has come."""

    data: bytes
    charge: Callable[[Caller, Any], Awaitable[None]]
    """Charges the caller for what was read; None is a request that can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method(Generic[C, Q, R]):
    """An RPC and every rule about it.

    `callers` is ListedCaller, or Caller for a method that is open to callers that the policy doesn't list. `permission`
    is what the policy must give a caller for the method, None where being listed is enough. `max_bytes` is the largest
    request. `cost` says how a request counts against rate limits (see `service.costs`), and `counts_as` whose limits
    count it: its own, unless another method is named. `audited` methods leave a line in the audit trail. The handler of
    a `queued` method takes an `Undecoded`.
    """

    name: str
    request: type[Q]
    response: type[R]
    callers: type[C]
    permission: Permission | None
    max_bytes: int
    cost: Callable[[Any, CallerPolicy, Permission | None], Projects]
    counts_as: Method[Any, Any, Any] | None = None
    audited: bool = False
    queued: bool = False
    growth: int = field(init=False)
    """How many bytes of memory a byte of the request can become, at most."""
    names_decision: bool = field(init=False)
    """Whether its response has the id of the decision."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "growth", growth(self.request))
        object.__setattr__(self, "names_decision", "decision_id" in self.response.DESCRIPTOR.fields_by_name)

    @property
    def open_to_all(self) -> bool:
        """Whether callers may call it that the policy doesn't list."""
        return not issubclass(self.callers, ListedCaller)

    @property
    def limit(self) -> str:
        """The name by which rate limits count its calls."""
        return self.counts_as.limit if self.counts_as is not None else self.name

    def served_by(
        self, handle: Callable[[C, Valid[Q]], Awaitable[R]], check: Callable[[Q], None] | None = None
    ) -> Served:
        """The method with its handler. `check` refuses, before the contract's rules, what a setting forbids."""
        self._require(queued=False)

        def checked(request: Q) -> Valid[Q]:
            if check is not None:
                check(request)
            return Valid(request)

        return Served(self, Valid if check is None else checked, handle)

    def queued_for(self, handle: Callable[[C, Undecoded], Awaitable[R]]) -> Served:
        """The method with a handler that decodes its requests itself, and makes each part of them a `Valid`."""
        self._require(queued=True)
        return Served(self, _as_it_is, handle)

    def _require(self, *, queued: bool) -> None:
        if self.queued is not queued:
            raise TypeError(f"{self.name} is declared with queued={self.queued}")


@dataclass(frozen=True, slots=True)
class Served:
    """A method with its handler. `ready` makes of a decoded request what the handler takes. Made by `Method`."""

    method: Method[Any, Any, Any]
    ready: Callable[[Any], Any]
    handle: Callable[[Any, Any], Awaitable[Message]]


AnyMethod = Method[Any, Any, Any]


def _as_it_is(request: Undecoded) -> Undecoded:
    return request
