"""The trace that the client propagates: the current span, or nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from livekit_auth._connection.trace import trace_metadata
from livekit_auth_server.core.trace import parse_traceparent

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.mark.parametrize("sampled", [True, False])
def test_current_span_is_the_parent(sampled: bool) -> None:  # noqa: FBT001
    state = TraceState([("rojo", "1"), ("congo", "2")])
    context = SpanContext(TRACE, SPAN, is_remote=False, trace_flags=TraceFlags(sampled), trace_state=state)
    with trace.use_span(NonRecordingSpan(context)):
        sent = dict(trace_metadata())
    assert sent["tracestate"] == "rojo=1,congo=2"
    parsed = parse_traceparent(sent["traceparent"])
    assert parsed is not None
    assert (int(parsed.trace_id, 16), int(parsed.span_id, 16), parsed.sampled) == (TRACE, SPAN, sampled)


def test_no_tracestate_is_sent_without_one() -> None:
    with trace.use_span(NonRecordingSpan(SpanContext(TRACE, SPAN, is_remote=False))):
        assert [name for name, _ in trace_metadata()] == ["traceparent"]


def test_nothing_is_sent_without_a_span() -> None:
    assert trace_metadata() == ()


def test_opentelemetry_is_never_imported() -> None:
    code = (
        "import sys; import livekit_auth, livekit_auth.sync; from livekit_auth._connection.trace import trace_metadata;"
        "print(trace_metadata(), [name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() []"
