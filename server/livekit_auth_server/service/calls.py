"""From bytes to a handler and back: admit, require the caller's policy, decode, validate, handle, encode.

Guarantees: the caller is identified and looked up before a byte of its request is read, and again when its request is
there, by the state of that moment; a request is decoded when there is room for what it becomes in memory, and reaches
its handler only if it keeps the contract's rules; every failure leaves as a `Refusal`, and an unexpected fault as one
that says nothing of its cause. After every await the state of that moment counts: code that awaits calls
`Caller.renewed` afterwards.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from livekit_auth_server.core.refusal import Overload, Reason, Refusal, overloaded
from livekit_auth_server.core.trace import parse_traceparent
from livekit_auth_server.service.admission import Admitted, CallContext, Caller, ListedCaller
from livekit_auth_server.service.decoding import check_size, decoded
from livekit_auth_server.service.limits import UNLISTED
from livekit_auth_server.service.method import Undecoded
from livekit_auth_server.service.ports import FinishedCall
from livekit_auth_server.service.status import CODE_OF

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from livekit_auth_server.service.budget import Budget
    from livekit_auth_server.service.limits import RateLimits
    from livekit_auth_server.service.method import AnyMethod, Served
    from livekit_auth_server.service.ports import CallObserver, Clock
    from livekit_auth_server.service.state import InForce

_LITTLE = 16 * 1024  # bytes in memory up to which a request isn't counted
PATIENCE = 1.0  # seconds that a request waits for room
_log = structlog.get_logger("livekit_auth_server")


@dataclass(frozen=True, slots=True)
class Calls:
    """Runs calls against the current state and tells the observer how each ended. Without `limits` none is charged."""

    in_force: InForce
    clock: Clock
    observer: CallObserver
    limits: RateLimits | None = None
    deny_unlisted: Callable[[Caller, str], str] | None = None  # records the denial of a method; returns its decision id
    room: Budget | None = None  # the memory for decoded requests; without it, as much as there is
    deny_invalid: Callable[[Caller, str, Refusal], Refusal] | None = None  # records that a request breaks a field rule

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
        finished = _finished(method, context, admitted, audited=False)
        _refused(finished, refusal)
        self._tell(finished)

    async def run(self, served: Served, context: CallContext, data: bytes, admitted: Admitted | None = None) -> bytes:
        """The serialised response. Raises Refusal, with INTERNAL for an unexpected fault.

        `admitted` saves identifying the caller again, unless the bundles or the time have changed.
        """
        method = served.method
        finished = _finished(method.name, context, admitted, audited=method.audited)
        call = _Call(self, method, context, admitted, finished)
        started = self.clock.monotonic()
        try:
            amount = len(data) * method.growth
            if self.room is None or method.queued or amount <= _LITTLE:
                return await call.answer(served, data)
            owner = admitted.owner if admitted is not None else UNLISTED
            await _turn(self.room, owner, amount)
            try:
                return await call.answer(served, data)
            finally:
                self.room.give(owner, amount)
        except Refusal as refusal:
            _refused(finished, refusal)
            raise
        except Exception:  # noqa: BLE001 - the error boundary
            log_fault("unexpected fault", method=method.name, trace_id=finished.trace_id)
            fault = internal()
            _refused(finished, fault)
            raise fault from None
        except BaseException:  # the call was cancelled, by the caller or by its deadline
            finished.code = "CANCELLED"
            raise
        finally:
            finished.seconds = self.clock.monotonic() - started
            self._tell(finished)

    def _tell(self, finished: FinishedCall) -> None:
        """Tells the observer. What goes wrong with it changes nothing for the caller."""
        try:
            self.observer.finished(finished)
        except Exception:  # noqa: BLE001 - whatever it is
            log_fault("the observer failed", method=finished.method, trace_id=finished.trace_id)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call under way. `finished` gathers what the observer will be told."""

    calls: Calls
    method: AnyMethod
    context: CallContext
    admitted: Admitted | None
    finished: FinishedCall

    async def answer(self, served: Served, data: bytes) -> bytes:
        """The serialised response: the caller first, then its request, then the contract's rules, then the handler."""
        caller = self.caller()
        if caller.policy is None:
            if self.calls.limits is not None:
                await self.calls.limits.charge_unlisted(self.method.name)
            self._require_listed(caller)
        request = await self._read(caller, data)
        caller = caller.renewed()
        try:
            ready = served.ready(request)
        except Refusal as refusal:
            if self.method.audited and self.calls.deny_invalid is not None:
                raise self.calls.deny_invalid(caller, self.method.name, refusal) from None
            raise
        response = await served.handle(caller, ready)
        if self.method.names_decision:
            self.finished.decision_id = response.decision_id  # type: ignore[attr-defined]
        return response.SerializeToString()

    def caller(self) -> Caller:
        """Who calls, by the state of this moment."""
        context, admitted = self.context, self.admitted
        state, now = self.calls.in_force.state, int(self.calls.clock.now())
        if admitted is not None and admitted.identifier is state.identifier and admitted.identified.holds(now):
            identified = admitted.identified
        else:
            identified = state.identifier.identify(context.leaf_pem, context.chain_pem, now, context.host)
        self.finished.caller = identified.identity.text
        state.denied.check(identified, now)
        listed = state.policy.callers.get(identified.identity.text)
        self.finished.listed = listed is not None
        made: type[Any] = Caller if listed is None else ListedCaller
        caller: Caller = made(
            identified,
            listed,
            state.policy,
            state.keys,
            now,
            self.finished.trace_id,
            state.shadow,
            state.version,
            self._again,
        )
        return caller

    def _again(self, before: Caller) -> Caller:
        if before.version == self.calls.in_force.state.version and before.now == int(self.calls.clock.now()):
            return before
        caller = self.caller()
        self._require_listed(caller)
        return caller

    def _require_listed(self, caller: Caller) -> None:
        """Raises CALLER_NOT_LISTED, unless the policy lists the caller or the method is open to all."""
        if isinstance(caller, self.method.callers):
            return
        metadata = {}
        who = caller.identified.identity.text
        if self.method.audited and self.calls.deny_unlisted is not None:
            metadata["decision_id"] = self.calls.deny_unlisted(caller, self.method.name)
            if caller.shadow is not None:
                caller.shadow.unlisted(who, self.method.name, metadata["decision_id"])
        raise Refusal(Reason.CALLER_NOT_LISTED, f"the policy doesn't list {who}", metadata)

    async def _read(self, caller: Caller, data: bytes) -> Message | Undecoded:
        """The request, charged to its caller if the policy lists it; one that can't be read is charged too."""
        method = self.method
        try:
            if method.queued:
                check_size(data, method.max_bytes)
                return Undecoded(data, self._charge)
            request: Message = decoded(method.request, data, method.max_bytes)
        except Refusal:
            await self._charge(caller, None)
            raise
        await self._charge(caller, request)
        return request

    async def _charge(self, caller: Caller, request: object) -> None:
        if self.calls.limits is not None and caller.policy is not None:
            await self.calls.limits.charge(caller.policy, self.method, request)


def _finished(method: str, context: CallContext, admitted: Admitted | None, *, audited: bool) -> FinishedCall:
    """How the call ends, before it has. A call that gets no room is still its caller's."""
    trace = parse_traceparent(context.traceparent) if context.traceparent else None
    finished = FinishedCall(method, context.peer, audited, context.user_agent, trace, context.tracestate)
    if admitted is not None:
        finished.caller, finished.listed = admitted.identified.identity.text, admitted.listed
    return finished


def _refused(finished: FinishedCall, refusal: Refusal) -> None:
    finished.code, finished.reason = CODE_OF[refusal.reason], refusal.reason
    finished.message, finished.decision_id = refusal.message, refusal.metadata.get("decision_id", "")
    if refusal.reason is Reason.OVERLOADED:
        finished.overload = refusal.metadata["cause"]


def internal() -> Refusal:
    """The refusal of a call that the server failed at."""
    return Refusal(Reason.INTERNAL, "the server failed to answer; its log has the details")


def log_fault(event: str, **fields: str) -> None:
    """Logs the exception that is being handled. A log that can't be written doesn't become the call's answer."""
    with suppress(Exception):
        _log.exception(event, **fields)


async def _turn(room: Budget, owner: str, amount: int) -> None:
    """Waits for room. Raises OVERLOADED."""
    try:
        async with asyncio.timeout(PATIENCE):
            await room.take(owner, amount)
    except TimeoutError:
        message = f"other large requests left no room for this one within {PATIENCE:g} s"
        raise overloaded(Overload.REQUEST_MEMORY, message) from None
