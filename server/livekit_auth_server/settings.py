"""The server's settings: a YAML file, each value open to an environment variable. docs/configuration.md lists them.

`LIVEKIT_AUTH_SERVER_LISTEN` sets `listen`, `LIVEKIT_AUTH_SERVER_LOG__LEVEL` sets `log.level`, and so on; the
environment wins over the file. Relative paths are taken from the file's folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from livekit_auth_server.adapters.logs import Format, Level  # noqa: TC001 - pydantic reads them
from livekit_auth_server.adapters.yaml_file import ConfigError, YamlFile

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_PROJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_URL = re.compile(r"(?:wss?|https?)://[^\s/?#@]+(?:/[^\s?#]*)?\Z")


def _address(text: str) -> str:
    if not _ADDRESS.match(text) or int(text.rsplit(":", 1)[1]) > 65535:  # noqa: PLR2004 - the highest port
        raise ValueError('should be HOST:PORT, such as "127.0.0.1:7443" or "[::1]:7443"')
    return text


def _url(text: str) -> str:
    if not _URL.match(text):
        raise ValueError('should be the url that clients connect to, such as "wss://livekit.example.org"')
    return text


Address = Annotated[str, AfterValidator(_address)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class TlsSettings(_Model):
    """The server's certificate chain and its ECDSA key, PEM files."""

    certificate: Path
    key: Path


class IdentitySettings(_Model):
    """Whose certificates are believed: a CA bundle for each SPIFFE trust domain, and one for DNS names if enabled."""

    trust_domains: dict[str, Path] = Field(default_factory=dict)
    dns_bundle: Path | None = None

    @model_validator(mode="after")
    def _some(self) -> IdentitySettings:
        if not self.trust_domains and self.dns_bundle is None:
            raise ValueError("needs trust_domains, dns_bundle or both")
        if wrong := next((name for name in self.trust_domains if not _TRUST_DOMAIN.match(name)), None):
            raise ValueError(f'"{wrong}" isn\'t a trust domain: a-z, 0-9, ".", "-" and "_"')
        return self


class KeysSettings(_Model):
    """Where a project's API keys are: exactly one of the three."""

    file: Path | None = None
    directory: Path | None = None
    environment: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> KeysSettings:
        if sum(value is not None for value in (self.file, self.directory, self.environment)) != 1:
            raise ValueError("needs exactly one of file, directory and environment")
        return self


class ProjectSettings(_Model):
    """A LiveKit project: the url that its clients connect to, and its keys."""

    url: Annotated[str, AfterValidator(_url)]
    keys: KeysSettings


class WebhookSettings(_Model):
    """Bounds of webhook checks: bytes of a body, seconds that an acknowledgement is remembered, how many a caller."""

    max_body: int = Field(default=1024 * 1024, ge=1024, le=3 * 1024 * 1024)
    remember: int = Field(default=24 * 3600, ge=60, le=30 * 24 * 3600)
    remember_per_caller: int = Field(default=100_000, ge=100, le=10_000_000)


class LogSettings(_Model):
    """How to log: "json", "console", or "auto" for console on a terminal and JSON elsewhere."""

    format: Format = "auto"
    level: Level = "info"


class LimitSettings(_Model):
    """Bounds on what clients can make the server hold. Sizes are in bytes, times in seconds."""

    metadata: int = Field(default=8192, ge=1024, le=65536)
    connections: int = Field(default=2000, ge=1, le=100_000)
    streams_per_connection: int = Field(default=100, ge=1, le=10_000)
    concurrent_calls: int = Field(default=4000, ge=1, le=100_000)
    handshake: float = Field(default=10.0, ge=0.1, le=120)
    connection_idle: float = Field(default=600.0, ge=1)
    connection_age: float = Field(default=3600.0, ge=1)
    connection_age_grace: float = Field(default=30.0, ge=0)


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix="LIVEKIT_AUTH_SERVER_",
        env_nested_delimiter="__",
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    listen: Address = "127.0.0.1:7443"
    tls: TlsSettings
    identity: IdentitySettings
    policy: Path
    projects: dict[str, ProjectSettings] = Field(min_length=1)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: Address | None = None
    reflection: bool = False
    drain: float = Field(default=30.0, ge=0, le=3600)
    _base: Path = PrivateAttr(default=Path())

    def at(self, path: Path) -> Path:
        """A path of the settings, taken from the settings file's folder."""
        return self._base / path.expanduser()

    @model_validator(mode="after")
    def _project_names(self) -> Settings:
        if wrong := next((name for name in self.projects if not _PROJECT.match(name)), None):
            raise ValueError(f'"{wrong}" isn\'t a project\'s name: a-z, 0-9 and "-", at most 63 characters')
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file."""
        return env_settings, init_settings


def load_settings(path: Path) -> Settings:
    """Reads the settings file. Raises ConfigError with the file, the line and what to do."""
    file = YamlFile.read(path)
    if not isinstance(file.data, dict):
        raise ConfigError(path, "holds no settings; `livekit-auth-server dev` writes an example")
    values: dict[str, Any] = dict(file.data)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise file.first_error(error) from None
    settings._base = path.parent  # noqa: SLF001 - this module's own
    return settings
