"""From bytes to a handler and back: admit, require the caller's policy, decode, handle, encode.

Guarantees: the caller is identified and looked up before a byte of its request is read, and again when its request is
there, by the state of that moment; a request is decoded when there is room for what it becomes in memory; one with
unknown fields is refused; whatever goes wrong leaves as a `Refusal`, and an unexpected fault as one that says nothing
of its cause. A call that has waited goes on with the state of that moment: whoever awaits anything calls
`Caller.renewed` afterwards.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import structlog
from google.protobuf.message import DecodeError, Message

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.refusal import Reason, Refusal, invalid
from livekit_auth_server.core.trace import TraceParent, parse_traceparent
from livekit_auth_server.service.limits import UNLISTED
from livekit_auth_server.service.status import CODE_OF
from livekit_auth_server.service.validation import violations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import Descriptor

    from livekit_auth_server.core.identity import Identified, Identifier
    from livekit_auth_server.core.keys import KeySet
    from livekit_auth_server.core.policy import CallerPolicy, Policy
    from livekit_auth_server.service.budget import Budget
    from livekit_auth_server.service.limits import RateLimits
    from livekit_auth_server.service.ports import CallObserver, Clock
    from livekit_auth_server.service.shadow import Shadow
    from livekit_auth_server.service.state import InForce

M = TypeVar("M", bound=Message)
Q = TypeVar("Q", bound="Message | Undecoded")
R = TypeVar("R", bound=Message)

_TOLD = 16  # broken rules in one answer
_GROWTH = 40  # how many bytes of memory a byte of messages within messages can become: an empty one takes two
_GROWTH_OF_SCALARS = 4  # the parser's copy, rounded up, and that of whoever reads the field
_LITTLE = 16 * 1024  # bytes in memory up to which a request isn't counted
_PATIENCE = 10  # seconds that a request waits for room
_log = structlog.get_logger("livekit_auth_server")


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
    """Who calls, found before its request is read. `owner` is whom its places and bytes count for.

    `identifier` is what identified it: another one, with other bundles, has to do it again.
    """

    owner: str
    listed: bool
    identified: Identified
    identifier: Identifier


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what the state was when it did. `policy` is None for a caller that the policy doesn't list."""

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


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A request as it came, for a handler that decodes it, and has it charged, once its turn has come."""

    data: bytes
    charge: Callable[[Caller, Any], Awaitable[None]]
    """Charges the caller for what was read; None is a request that can't be read."""


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """An RPC: its name, its request message and its handler. `audited` methods leave their line in the audit trail.

    The handler of a method that is `queued` takes an `Undecoded`.
    """

    name: str
    request: type[Message]
    handle: Callable[[ListedCaller, Q], Awaitable[R]]
    max_bytes: int
    audited: bool = False
    queued: bool = False


@dataclass(frozen=True, slots=True)
class OpenMethod(Generic[Q, R]):
    """An RPC for every caller that could be identified, whether the policy lists it or not."""

    name: str
    request: type[Message]
    handle: Callable[[Caller, Q], Awaitable[R]]
    max_bytes: int
    audited: bool = False
    queued: bool = False


@dataclass(slots=True)
class Finished:
    """How a call ended: what the observer is told. `caller` is verified; `listed` is whether the policy has it."""

    method: str
    peer: str
    audited: bool
    user_agent: str = ""
    trace: TraceParent | None = None
    tracestate: str = ""
    caller: str = ""
    listed: bool = False
    code: str = "OK"
    reason: str = ""
    message: str = ""
    decision_id: str = ""
    seconds: float = 0.0

    @property
    def trace_id(self) -> str:
        """The caller's trace, empty when it sent none."""
        return self.trace.trace_id if self.trace is not None else ""


@dataclass(frozen=True, slots=True)
class Calls:
    """Runs calls against the current state and tells the observer how each ended. Without `limits` none is charged."""

    in_force: InForce
    clock: Clock
    observer: CallObserver
    limits: RateLimits | None = None
    deny_unlisted: Callable[[Caller, str], str] | None = None  # records the denial of a method; returns its decision id
    room: Budget | None = None  # the memory for decoded requests; without it, as much as there is

    def admit(self, context: CallContext) -> Admitted:
        """Who calls. Raises Refusal for a peer whose certificate isn't accepted now, or is revoked."""
        state, now = self.in_force.state, int(self.clock.now())
        try:
            identified = state.identifier.identify(context.leaf_pem, context.chain_pem, now, context.host)
            state.denied.check(identified, now)
        except Refusal:
            raise
        except Exception:  # noqa: BLE001 - the error boundary
            log_fault("unexpected fault")
            raise internal() from None
        listed = identified.identity.text in state.policy.callers
        return Admitted(identified.identity.text if listed else UNLISTED, listed, identified, state.identifier)

    def turned_away(self, method: str, context: CallContext, refusal: Refusal, admitted: Admitted | None) -> None:
        """Tells the observer of a call that was refused before it came to `run`."""
        finished = _finished(method, context, audited=False)
        if admitted is not None:
            finished.caller, finished.listed = admitted.identified.identity.text, admitted.listed
        self._refused(finished, refusal)
        self._tell(finished)

    async def run(
        self,
        method: Method[Q, R] | OpenMethod[Q, R],
        context: CallContext,
        data: bytes,
        admitted: Admitted | None = None,
    ) -> bytes:
        """The serialised response. Raises Refusal, with INTERNAL for an unexpected fault.

        `admitted` saves identifying the caller again, unless the bundles or the time have changed.
        """
        finished = _finished(method.name, context, audited=method.audited)
        if admitted is not None:  # a call that gets no room is still its caller's
            finished.caller, finished.listed = admitted.identified.identity.text, admitted.listed
        started = self.clock.monotonic()
        try:
            amount = len(data) * _growth(method.request.DESCRIPTOR)
            if self.room is None or method.queued or amount <= _LITTLE:
                return await self._handle(method, context, data, finished, admitted)
            owner = admitted.owner if admitted is not None else UNLISTED
            await _turn(self.room, owner, amount)
            try:
                return await self._handle(method, context, data, finished, admitted)
            finally:
                self.room.give(owner, amount)
        except Refusal as refusal:
            self._refused(finished, refusal)
            raise
        except Exception:  # noqa: BLE001 - the error boundary
            log_fault("unexpected fault", method=method.name, trace_id=finished.trace_id)
            fault = internal()
            self._refused(finished, fault)
            raise fault from None
        except BaseException:  # the call was cancelled, by the caller or by its deadline
            finished.code = "CANCELLED"
            raise
        finally:
            finished.seconds = self.clock.monotonic() - started
            self._tell(finished)

    async def _handle(
        self,
        method: Method[Q, R] | OpenMethod[Q, R],
        context: CallContext,
        data: bytes,
        finished: Finished,
        admitted: Admitted | None,
    ) -> bytes:
        caller = self._caller(method, context, finished, admitted)
        if not isinstance(caller, ListedCaller):
            if self.limits is not None:
                await self.limits.charge_unlisted(method.name)
            if not isinstance(method, OpenMethod):
                raise self._not_listed(caller, method)
        request = await self._read(method, caller, data)
        return _answer(await method.handle(cast("ListedCaller", caller.renewed()), request), finished)

    def _caller(
        self,
        method: Method[Q, R] | OpenMethod[Q, R],
        context: CallContext,
        finished: Finished,
        admitted: Admitted | None,
    ) -> Caller | ListedCaller:
        """Who calls, by the state of this moment."""
        state, now = self.in_force.state, int(self.clock.now())
        if admitted is not None and admitted.identifier is state.identifier and admitted.identified.holds(now):
            identified = admitted.identified
        else:
            identified = state.identifier.identify(context.leaf_pem, context.chain_pem, now, context.host)
        finished.caller = identified.identity.text
        state.denied.check(identified, now)
        listed = state.policy.callers.get(identified.identity.text)
        finished.listed = listed is not None
        again = partial(self._again, method, context, finished, admitted)
        made: type[Any] = Caller if listed is None else ListedCaller
        caller: Caller | ListedCaller = made(
            identified, listed, state.policy, state.keys, now, finished.trace_id, state.shadow, state.version, again
        )
        return caller

    def _again(
        self,
        method: Method[Q, R] | OpenMethod[Q, R],
        context: CallContext,
        finished: Finished,
        admitted: Admitted | None,
        before: Caller,
    ) -> Caller:
        if before.version == self.in_force.state.version and before.now == int(self.clock.now()):
            return before
        caller = self._caller(method, context, finished, admitted)
        if isinstance(method, OpenMethod) or isinstance(caller, ListedCaller):
            return caller
        raise self._not_listed(caller, method)

    async def _read(self, method: Method[Q, R] | OpenMethod[Q, R], caller: Caller, data: bytes) -> Q:
        """The request, charged to its caller if the policy lists it, which one that can't be read is too."""
        request: Any
        try:
            if method.queued:
                check_size(data, method.max_bytes)
                request = Undecoded(data, partial(self._charge, method.name))
                return request  # type: ignore[no-any-return]
            request = decoded(method.request, data, method.max_bytes)
        except Refusal:
            await self._charge(method.name, caller, None)
            raise
        await self._charge(method.name, caller, request)
        return request  # type: ignore[no-any-return]

    async def _charge(self, method: str, caller: Caller, request: Any) -> None:  # noqa: ANN401 - by the method's name
        if self.limits is not None and caller.policy is not None:
            await self.limits.charge(caller.policy, method, request)

    def _not_listed(self, caller: Caller, method: Method[Q, R]) -> Refusal:
        metadata = {}
        if method.audited and self.deny_unlisted is not None:
            metadata["decision_id"] = self.deny_unlisted(caller, method.name)
            if caller.shadow is not None:
                caller.shadow.unlisted(caller.identified.identity.text, method.name, metadata["decision_id"])
        return Refusal(Reason.CALLER_NOT_LISTED, f"the policy doesn't list {caller.identified.identity.text}", metadata)

    def _tell(self, finished: Finished) -> None:
        """Tells the observer. What goes wrong with it changes nothing for the caller."""
        try:
            self.observer.finished(finished)
        except Exception:  # noqa: BLE001 - whatever it is
            log_fault("the observer failed", method=finished.method, trace_id=finished.trace_id)

    @staticmethod
    def _refused(finished: Finished, refusal: Refusal) -> None:
        finished.code, finished.reason = CODE_OF[refusal.reason], refusal.reason
        finished.message, finished.decision_id = refusal.message, refusal.metadata.get("decision_id", "")


def _finished(method: str, context: CallContext, *, audited: bool) -> Finished:
    trace = parse_traceparent(context.traceparent) if context.traceparent else None
    return Finished(method, context.peer, audited, context.user_agent, trace, context.tracestate)


def internal() -> Refusal:
    """The refusal of a call that the server failed at."""
    return Refusal(Reason.INTERNAL, "the server failed to answer; its log has the details")


def _answer(response: Message, finished: Finished) -> bytes:
    """The response as it leaves. Only that of IssueToken names its decision."""
    if isinstance(response, pb.IssueTokenResponse):
        finished.decision_id = response.decision_id
    return response.SerializeToString()


def log_fault(event: str, **fields: str) -> None:
    """Logs the exception that is being handled. A log that can't be written doesn't become the call's answer."""
    with suppress(Exception):
        _log.exception(event, **fields)


async def _turn(room: Budget, owner: str, amount: int) -> None:
    """Waits for room. Raises RATE_LIMITED."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await room.take(owner, amount)
    except TimeoutError:
        message = f"other large requests left no room for this one within {_PATIENCE} s"
        raise Refusal(Reason.RATE_LIMITED, message, retry_after=1.0) from None


@cache
def _growth(request: Descriptor) -> int:
    """How many bytes of memory a byte of such a request can become, at most."""
    return _GROWTH if any(field.message_type for field in request.fields) else _GROWTH_OF_SCALARS


def check_size(data: bytes, max_bytes: int) -> None:
    """Raises INVALID_REQUEST for more bytes than a request may have."""
    if len(data) > max_bytes:
        raise Refusal(Reason.INVALID_REQUEST, f"{len(data)} bytes are over this request's limit of {max_bytes}")


def decoded(message_type: type[M], data: bytes, max_bytes: int) -> M:
    """The request. Raises INVALID_REQUEST, MALFORMED_REQUEST or UNKNOWN_FIELD; the parser's words stay in the server.

    The size comes first: two bytes of an empty message become a hundred in memory.
    """
    check_size(data, max_bytes)
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise Refusal(Reason.MALFORMED_REQUEST, f"the request isn't a {name}") from None
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise Refusal(Reason.UNKNOWN_FIELD, "the request has a field that this server doesn't know")
    return message


def require_valid(message: Message) -> None:
    """Raises INVALID_REQUEST with the rules that the message breaks; the first few, since trailers are bounded."""
    if found := violations(message, _TOLD):
        raise invalid(*found)
