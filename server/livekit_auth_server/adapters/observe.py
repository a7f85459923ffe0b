"""Prometheus metrics and a log line for each finished call.

Labels are bounded: method, code and reason; the versions of clients (adapters.client_versions); and callers only as far
as a setting says, all others together. What callers write counts for listed callers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Histogram

from livekit_auth_server.adapters.client_versions import ClientVersions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.service.ports import CallObserver, FinishedCall

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
OTHER_CALLERS = "other"  # no workload identity looks so


class Observers:
    """Tells several observers of every call."""

    def __init__(self, *observers: CallObserver) -> None:
        self._observers: Sequence[CallObserver] = observers

    def finished(self, call: FinishedCall) -> None:
        """Tells each."""
        for observer in self._observers:
            observer.finished(call)


class CallerMetrics:
    """Counts calls by caller: the first `most` listed callers that call by name, all others together."""

    def __init__(self, registry: CollectorRegistry, most: int) -> None:
        self._calls = Counter(
            "livekit_auth_caller_calls", "Finished calls by caller.", ("caller", "outcome"), registry=registry
        )
        self._most = most
        self._named: dict[str, tuple[Counter, Counter]] = {}
        self._others = self._children(OTHER_CALLERS)

    def finished(self, call: FinishedCall) -> None:
        """Counts the call as "ok" or "refused"."""
        children = self._named.get(call.caller)
        if children is None:
            children = self._others
            if call.listed and len(self._named) < self._most:
                children = self._named[call.caller] = self._children(call.caller)
        children[call.code != "OK"].inc()

    def _children(self, caller: str) -> tuple[Counter, Counter]:
        return self._calls.labels(caller, "ok"), self._calls.labels(caller, "refused")


class Observer:
    """Counts and logs calls. A decision in the audit trail gets no second line."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log = structlog.get_logger("livekit_auth_server")
        self._calls = Counter("livekit_auth_calls", "Finished calls.", ("method", "code", "reason"), registry=registry)
        self._seconds = Histogram(
            "livekit_auth_call_seconds", "Time to answer, in seconds.", ("method",), buckets=_BUCKETS, registry=registry
        )
        self._clients = Counter(
            "livekit_auth_client_calls",
            "Finished calls of listed callers by client library.",
            ("client", "version"),
            registry=registry,
        )
        self._versions = ClientVersions()
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._client_children: dict[tuple[str, str], Counter] = {}

    def finished(self, call: FinishedCall) -> None:
        """Counts the call, and logs it unless the audit trail has it."""
        self._count(call)
        if call.audited and (call.code == "OK" or call.decision_id):
            return
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

    def _count(self, call: FinishedCall) -> None:
        labels = (call.method, call.code, call.reason)
        children = self._children.get(labels)
        if children is None:
            children = self._calls.labels(*labels), self._seconds.labels(call.method)
            self._children[labels] = children
        counter, histogram = children
        counter.inc()
        histogram.observe(call.seconds)
        if call.listed:
            version = self._versions.of(call.user_agent)
            client = self._client_children.get(version)
            if client is None:
                client = self._client_children[version] = self._clients.labels(*version)
            client.inc()
