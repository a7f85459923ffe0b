"""Refusals as HTTP responses: only what a browser may be told, never the server's own reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth._messages.errors import AuthError

RETRY_SECONDS = 2
"""The Retry-After if the server gives none."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response with a JSON object as its body."""

    status: int
    content: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """The request is refused with `response`. `detail` is human-readable; `fields` says what is wrong per field."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        fields: Mapping[str, str] | None = None,
        decision_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        content: dict[str, object] = {"detail": detail}
        if fields:
            content["fields"] = dict(fields)
        if decision_id:
            content["decision_id"] = decision_id
        self.response = HttpResponse(status, content, dict(headers or {}))


def retry_after(error: AuthError | None = None) -> dict[str, str]:
    """The Retry-After header, in whole seconds, at least one (RFC 9110, 10.2.3)."""
    wait = error.retry_after if error else None
    return {"retry-after": str(max(1, math.ceil(wait.total_seconds())) if wait else RETRY_SECONDS)}
