"""What a person who starts a server in a terminal sees first: one summary in place of the log line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from livekit_auth_server.cli.terminal import err
from livekit_auth_server.files.errors import printable
from livekit_auth_server.service.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from livekit_auth_server.config.settings import Settings

_EVENTS = ("serving", "supervising")
_WARNINGS = ("warning", "error", "critical")


class StartSummary:
    """A structlog processor that shows the first line that says the server serves as a summary, and drops it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._warnings = 0
        self._shown = False

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Counts warnings until the server serves."""
        if self._shown or event["event"] not in _EVENTS:
            self._warnings += event.get("level") in _WARNINGS
            return event
        self._shown = True
        err.print(f"[green]●[/green] [bold]livekit-auth-server {VERSION} serves[/bold]")
        for name, value in self._rows(event):
            err.print(f"  {name:<10}{printable(value)}", markup=False)
        err.print("  Ctrl-C drains and stops.", style="dim")
        raise structlog.DropEvent

    def _rows(self, event: MutableMapping[str, Any]) -> Iterator[tuple[str, str]]:
        settings = self._settings
        yield "address", f"{settings.listen.rpartition(':')[0]}:{event['port']}"
        if "workers" in event:
            yield "workers", str(event["workers"])
        else:
            yield "policy", f"{event['policy_revision']}, {event['callers']} callers"
        for name, project in sorted(settings.projects.items()):
            yield "project", f"{name}, {project.url}"
        trail = settings.audit.path
        yield "audit", str(settings.at(trail)) if trail else "log lines only: set audit.path to keep a trail"
        probes = settings.metrics
        yield "probes", f"http://{probes}/livez, /readyz, /metrics" if probes else "off: set metrics to HOST:PORT"
        yield "limits", "shared in Redis" if settings.redis else "each process counts its own"
        if "workers" not in event:  # those of workers are in their own lines
            yield "warnings", f"{self._warnings}, above" if self._warnings else "none"
