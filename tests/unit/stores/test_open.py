"""Opening the stores: a Redis that can't be used leaves no connection behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import AuthenticationError

from livekit_auth_server.config.redis import RedisSettings
from livekit_auth_server.config.settings import Settings
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.stores import redis_link
from livekit_auth_server.stores.open import open_stores
from support.fakes import FakeClock

SETTINGS = {
    "tls": {"certificate": "server.pem", "key": "server.key"},
    "identity": {"trust_domains": {"example.org": "ca.pem"}},
    "policy": Path("policy.yaml"),
    "projects": {"default": {"url": "wss://livekit.example.org", "keys": {"file": "keys.yaml"}}},
    "redis": RedisSettings(url="redis://localhost"),
}


@pytest.mark.parametrize(
    ("fault", "raised"), [(AuthenticationError(), ConfigError), (RuntimeError("a bug"), RuntimeError)]
)
async def test_a_redis_that_fails_at_the_start_is_closed(
    fault: Exception, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    class Link:
        def __init__(self, *_: object) -> None:
            """Connects to nothing."""

        async def open(self) -> None:
            raise fault

        async def close(self) -> None:
            closed.append(1)

    monkeypatch.setattr(redis_link, "RedisLink", Link)
    settings = Settings(**SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(raised):
        await open_stores(settings, FakeClock(), CollectorRegistry())
    assert closed == [1]
