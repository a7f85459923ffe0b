"""Prometheus metrics and log lines about finished calls.

Labels are bounded: method, code and reason; the bound that a call without room met; client versions
(telemetry.client_versions); and callers, where a setting says how many have their own label. Text that callers choose
is used for listed callers only.

Log lines about refused calls are bounded: a listed caller's refusals beyond its allowance are counted together. All
callers that the policy doesn't list share one allowance, whatever the result of their calls. Calls without an identity,
including those that the transport refuses, share another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from livekit_auth_server.core.counted_denials import UNLISTED
from livekit_auth_server.core.refusal import Overload
from livekit_auth_server.logs.counted_lines import CountedLines, Happening
from livekit_auth_server.telemetry.client_versions import ClientVersions
from livekit_auth_server.telemetry.counters import Counts, TimesBy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.counted_denials import CountedDenials
    from livekit_auth_server.service.ports import CallObserver, Clock, FinishedCall

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
OTHER_CALLERS = "other"  # no workload identity looks like this
UNIDENTIFIED = "(unidentified)"  # nor like this: shared by the log lines of calls without an identity


class Observers:
    """Tells several observers of every call."""

    def __init__(self, *observers: CallObserver) -> None:
        self._observers: Sequence[CallObserver] = observers

    def finished(self, call: FinishedCall) -> None:
        """Tells each."""
        for observer in self._observers:
            observer.finished(call)


class CallerMetrics:
    """Counts calls by caller: the first `most` listed callers that call have their own label, all others share one."""

    def __init__(self, registry: CollectorRegistry, most: int) -> None:
        labels = ("caller", "outcome")
        self._calls = Counts("livekit_auth_caller_calls", "Finished calls by caller.", labels, registry)
        self._most = most
        self._named: set[str] = set()
        self._calls.add((OTHER_CALLERS, "ok"), 0)
        self._calls.add((OTHER_CALLERS, "refused"), 0)

    def finished(self, call: FinishedCall) -> None:
        """Counts the call as "ok" or "refused"."""
        name = call.caller
        if name not in self._named:
            if call.listed and len(self._named) < self._most:
                self._named.add(name)
            else:
                name = OTHER_CALLERS
        self._calls.add((name, "ok" if call.code == "OK" else "refused"))


class Observer:
    """Counts and logs calls. A decision that the audit trail has gets no log line."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._log, self._clock = structlog.get_logger("livekit_auth_server"), clock
        self._lines = CountedLines(clock, self._say_together)
        labels = ("method", "code", "reason")
        self._calls = Counts("livekit_auth_calls", "Finished calls.", labels, registry)
        text = "Time to answer, in seconds."
        self._seconds = TimesBy("livekit_auth_call_seconds", text, _BUCKETS, registry, "method")
        self._clients = Counts(
            "livekit_auth_client_calls",
            "Finished calls of listed callers by client library.",
            ("client", "version"),
            registry,
        )
        self._versions = ClientVersions()
        text = "Calls that found no room, by the bound that they met."
        self._overloaded = Counts("livekit_auth_overloaded", text, ("cause",), registry)
        for cause in Overload:
            self._overloaded.add((cause.value,), 0)

    def finished(self, call: FinishedCall) -> None:
        """Counts the call, and logs it unless the audit trail has it."""
        self._count(call)
        if call.audited and (call.code == "OK" or call.decision_id):
            return
        if (call.listed and call.code == "OK") or self._admits(call):
            self._say(call)

    def close(self) -> None:
        """Logs what was counted and not yet logged."""
        self._lines.close()

    def _admits(self, call: FinishedCall) -> bool:
        """Whether the call gets a line of its own."""
        who, shared = call.caller, None if call.listed else UNLISTED
        if not call.caller:
            who, shared = call.peer.rpartition(":")[0], UNIDENTIFIED
        why = str(call.reason or call.code)  # str: JSON takes no member of an enum as a name
        return self._lines.admits(Happening(who, int(self._clock.now()), call.method, why), shared)

    def _say(self, call: FinishedCall) -> None:
        level = self._log.info if call.code != "INTERNAL" else self._log.error
        level(
            "call",
            method=call.method,
            code=call.code,
            reason=call.reason,
            caller=call.caller,
            peer=call.peer,
            milliseconds=round(call.seconds * 1000, 3),
            trace_id=call.trace_id,
            detail=call.message,
        )

    def _say_together(self, counted: CountedDenials) -> None:
        """One line for calls beyond an allowance, with its caller, or the first few callers of a shared one."""
        named: dict[str, Any] = {"caller": counted.caller}
        if counted.shared:
            named = {"peers" if counted.caller == UNIDENTIFIED else "callers": counted.callers}
        level = self._log.info if "INTERNAL" not in counted.reasons else self._log.error
        times = {"from": counted.first, "time": counted.last}
        methods, reasons = dict(counted.methods), dict(counted.reasons)
        level("calls", count=counted.count, methods=methods, reasons=reasons, **named, **times)

    def _count(self, call: FinishedCall) -> None:
        self._calls.add((call.method, call.code, call.reason))
        self._seconds.of(call.method).add(call.seconds)
        if call.overload:
            self._overloaded.add((call.overload,))
        if call.listed:
            self._clients.add(self._versions.of(call.user_agent))
