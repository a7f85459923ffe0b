"""Optional dependencies, which are installed as extras."""

from __future__ import annotations

from importlib import import_module

from livekit_auth.extras import how_to_install
from livekit_auth_server.files.errors import ConfigError

DIST = "livekit-auth-server"
_MODULES = {"redis": "redis.asyncio", "otlp": "opentelemetry.exporter.otlp.proto.http.trace_exporter"}


def require(extra: str, setting: str) -> None:
    """Raises ConfigError, with the command to run, when the setting needs an extra that isn't installed."""
    try:
        import_module(_MODULES[extra])
    except ImportError:
        raise ConfigError(setting, f"needs the extra {extra}: {how_to_install(extra, dist=DIST)}") from None
