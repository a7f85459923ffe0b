"""`livekit-auth-server serve` without an audit trail, to measure what the trail costs. For measurements only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livekit_auth_server.audit import audit_log
from livekit_auth_server.cli import app as cli

if TYPE_CHECKING:
    from collections.abc import Sequence


async def _nothing(_self: Any, _records: Sequence[Any]) -> None:  # noqa: ANN401 - what is replaced
    """Records nothing."""


if __name__ == "__main__":
    audit_log.AuditLog.record = _nothing  # type: ignore[method-assign, assignment]
    cli.main()
