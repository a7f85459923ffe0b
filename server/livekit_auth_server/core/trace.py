"""The W3C traceparent that a caller sends (https://www.w3.org/TR/trace-context/, level 1).

Guarantees: a `TraceParent` has ids of lower-case hexadecimal digits and nothing else, so that they can stand in logs
and in the audit trail; what the standard calls invalid is as if nothing had been sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Section 3.2.2. A later version may append fields after another "-" (section 4.3); version 00 may not, ff is none.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-[!-~]{0,200})?\Z"
)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The caller's trace (32 hexadecimal digits) and span (16), and whether the caller records its trace."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(text: str) -> TraceParent | None:
    """What the header says; None when it is empty or malformed."""
    match = _TRACEPARENT.match(text)
    if match is None or (match["version"] == "00" and match["rest"] is not None):
        return None
    return TraceParent(match["trace"], match["span"], bool(int(match["flags"], 16) & _SAMPLED))
