"""Parts that are installed only where they are used."""

from __future__ import annotations

from importlib import import_module

from livekit_auth._extras import missing
from livekit_auth_server.adapters.yaml_file import ConfigError

_MODULES = {"redis": "redis.asyncio", "otlp": "opentelemetry.exporter.otlp.proto.http.trace_exporter"}


def require(extra: str, setting: str) -> None:
    """Raises ConfigError, with what to install, where the setting needs an extra that isn't there."""
    try:
        import_module(_MODULES[extra])
    except ImportError:
        raise ConfigError(setting, missing(extra, "livekit-auth-server")) from None
