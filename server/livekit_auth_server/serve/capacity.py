"""Whether the settings fit the process's limits of open files and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process import operating_system as process

if TYPE_CHECKING:
    from livekit_auth_server.config.settings import Settings


def fit(settings: Settings) -> str:
    """Lowers the default of limits.connections until it fits; returns a warning. Raises ConfigError for a set value."""
    allowed, limits = process.open_files(), settings.limits
    room = allowed - process.RESERVE
    if limits.connections <= room:
        return ""
    if "connections" in limits.model_fields_set:
        raise ConfigError(
            "limits.connections",
            f"{limits.connections} connections and {process.RESERVE} other descriptors don't fit into the {allowed} "
            f"that this process may have: set at most {max(0, room)}, or raise the descriptor limit (ulimit -Hn, "
            "LimitNOFILE=)",
        )
    limits.connections = room
    return f"limits.connections is lowered to {room}: the descriptor limit (ulimit -Hn, LimitNOFILE=) is {allowed}"


def check_threads() -> None:
    """Raises ConfigError where too few threads can be started: gRPC would abort the process."""
    if (found := process.startable_threads()) < process.THREADS:
        raise ConfigError(
            "threads",
            f"only {found} of {process.THREADS} can be started: raise the limit of processes (ulimit -u, TasksMax=, "
            "pids.max)",
        )
