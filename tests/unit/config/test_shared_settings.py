"""Settings of rate limits and of the store that servers share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from livekit_auth_server.config.redis import RedisSettings
from livekit_auth_server.config.settings import Settings, load_settings
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.clock import SystemClock
from livekit_auth_server.stores.acknowledgements_in_memory import MemoryAckStore
from livekit_auth_server.stores.open import open_stores

if TYPE_CHECKING:
    from pathlib import Path

BASE = """\
tls: {certificate: server.pem, key: server.key}
identity: {dns_bundle: ca.pem}
policy: policy.yaml
projects: {default: {url: "wss://livekit.example.org", keys: {file: keys.yaml}}}
"""


def load(folder: Path, more: str) -> Settings:
    path = folder / "server.yaml"
    path.write_text(BASE + more)
    return load_settings(path)


def mistake(folder: Path, more: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, more)
    assert caught.value.line is None or caught.value.line >= 5
    return caught.value.message


def test_unlisted_callers_are_limited_and_listed_ones_not_unless_somebody_says_so(tmp_path):
    settings = load(tmp_path, "")
    assert settings.default_limits == []
    assert [limit.rate for limit in settings.unlisted_limits] == ["20/s"]
    assert settings.redis is None


def test_default_limits_can_name_methods(tmp_path):
    settings = load(
        tmp_path, "default_limits: [{rate: 50/s}, {rate: 5/s, methods: [GetCaller]}]\nunlisted_limits: []\n"
    )
    assert [limit.limit().key for limit in settings.default_limits] == ["50/s|any|", "5/s|GetCaller|"]
    assert settings.unlisted_limits == []


def test_limits_come_from_the_environment_too(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVEKIT_AUTH_SERVER_DEFAULT_LIMITS", '[{"rate": "7/m"}]')
    monkeypatch.setenv("LIVEKIT_AUTH_SERVER_REDIS__TIMEOUT", "0.2")
    settings = load(tmp_path, "redis: {url: redis://localhost}\n")
    assert [limit.rate for limit in settings.default_limits] == ["7/m"]
    assert settings.redis is not None
    assert settings.redis.timeout == 0.2


def test_redis_has_defaults_for_everything_but_its_url():
    settings = RedisSettings(url="redis://localhost")
    assert (settings.prefix, settings.timeout, settings.when_unavailable) == ("livekit-auth:", 0.05, "local")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://127.0.0.1:6379",
        "redis://[::1]:6379/0",
        "rediss://redis.example.org/15",
        "rediss://app@redis.example.org:6380/1",
        "unix:///run/redis/redis.sock",
    ],
)
def test_a_url_says_where_redis_is(url):
    assert RedisSettings(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis:///0",
        "redis://localhost/zero",
        "redis://localhost?password=MARKER",
        "redis://localhost/0?ssl_cert_reqs=none",
        "redis://localhost/0#x",
        "redis://local host",
        "redis://localhost\n",
        "redis://localhost:99999",
        "redis://localhost:0",
        "redis://[1::2::3]",
        "unix://run/redis.sock",
        6379,
    ],
)
def test_any_other_url_is_refused_without_being_repeated(tmp_path, url):
    message = mistake(tmp_path, f"redis: {{url: {url!r}}}\n")
    assert message.startswith("redis.url: should be such as")
    assert "MARKER" not in message


@pytest.mark.parametrize("url", ["redis://:MARKER@localhost", "rediss://app:MARKER@redis.example.org:6380/1"])
def test_a_password_has_no_place_in_a_url(tmp_path, url):
    message = mistake(tmp_path, f"redis: {{url: '{url}'}}\n")
    assert "password_file" in message
    assert "MARKER" not in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("default_limits: [{rate: 20}]", 'default_limits.0.rate: should be a rate such as "20/s"'),
        ("default_limits: [{rate: 5/s, project: default}]", "default_limits.0.project: there is no such field"),
        ("unlisted_limits: [{rate: 5/s, methods: any}]", "unlisted_limits.0.methods: there is no such field"),
        ("default_limits: [{rate: 5/s}, {rate: 5/s, methods: any}]", "default_limits: duplicate limit"),
        ("redis: {}", "redis.url: is required"),
        ("redis: {url: redis://localhost, timeout: 0}", "redis.timeout: should be at least 0.001"),
        ("redis: {url: redis://localhost, when_unavailable: allow}", "redis.when_unavailable: should be 'local' or"),
        ("redis: {url: redis://localhost, password: x}", "redis.password: there is no such field"),
        ("redis: {url: redis://localhost, prefix: 'a b'}", "redis.prefix: "),
        ("redis: {url: redis://localhost, prefix: 'a{b}'}", "redis.prefix: "),
        ("redis: {url: redis://localhost, ca: ca.pem}", "redis: ca, certificate and key are for TLS"),
        ("redis: {url: rediss://localhost, key: r.key}", "redis: certificate and key need each other"),
    ],
)
def test_mistakes_say_what_to_do(tmp_path, more, message):
    assert mistake(tmp_path, more).startswith(message)


async def test_redis_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    settings = load(tmp_path, "redis: {url: redis://localhost}\n")
    with pytest.raises(ConfigError, match=r"redis: needs the extra redis: pip install 'redis>=[\d.]+'"):
        await open_stores(settings, SystemClock(), CollectorRegistry())


async def test_without_redis_everything_is_in_memory(tmp_path):
    stores = await open_stores(load(tmp_path, ""), SystemClock(), CollectorRegistry())
    assert stores.link is None
    assert isinstance(stores.acknowledged, MemoryAckStore)
    await stores.close()
