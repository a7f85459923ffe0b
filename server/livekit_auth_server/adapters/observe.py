"""Prometheus metrics and a log line for each finished call. Labels are bounded: method, code and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livekit_auth_server.service.ports import FinishedCall

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Observer:
    """Counts and logs calls. A decision in the audit trail gets no second line."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log = structlog.get_logger("livekit_auth_server")
        self._calls = Counter("livekit_auth_calls", "Finished calls.", ("method", "code", "reason"), registry=registry)
        self._seconds = Histogram(
            "livekit_auth_call_seconds", "Time to answer, in seconds.", ("method",), buckets=_BUCKETS, registry=registry
        )
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def finished(self, call: FinishedCall) -> None:
        """Counts the call, and logs it unless the audit trail has it."""
        labels = (call.method, call.code, call.reason)
        children = self._children.get(labels)
        if children is None:
            children = self._calls.labels(*labels), self._seconds.labels(call.method)
            self._children[labels] = children
        counter, histogram = children
        counter.inc()
        histogram.observe(call.seconds)
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
