"""The server's settings: a YAML or JSON file, each value open to an environment variable.

`LIVEKIT_AUTH_SERVER_LISTEN` sets `listen`, `LIVEKIT_AUTH_SERVER_LOG__LEVEL` sets `log.level`, and so on. The
environment wins over the file. Relative paths start at the file's folder. docs/configuration.md lists all settings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from livekit_auth_server.config.limits import DefaultLimit, UnlistedLimit
from livekit_auth_server.config.project_name import ProjectName  # noqa: TC001 - pydantic reads it
from livekit_auth_server.config.redis import RedisSettings  # noqa: TC001
from livekit_auth_server.config.sections import (
    Address,
    AuditSettings,
    IdentitySettings,
    LimitList,
    LimitSettings,
    LogSettings,
    ProjectSettings,
    SelfcheckMode,
    TlsSettings,
    WebhookSettings,
    WorkloadApiSettings,
)
from livekit_auth_server.config.tracing import TracingSettings  # noqa: TC001
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError, Location, first_mistake

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "LIVEKIT_AUTH_SERVER_"
_CONFIG = "CONFIG"  # LIVEKIT_AUTH_SERVER_CONFIG is the command line's
# What Kubernetes sets in every pod for a Service whose name is livekit-auth-server, or begins so.
_SERVICE_LINK = re.compile(r"_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)\Z")


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    listen: Address = "127.0.0.1:7443"
    workers: int = Field(default=1, ge=1, le=64)
    tls: TlsSettings
    identity: IdentitySettings
    workload_api: WorkloadApiSettings | None = None
    policy: Path
    shadow_policy: Path | None = None
    projects: dict[ProjectName, ProjectSettings] = Field(min_length=1)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    default_limits: LimitList[DefaultLimit] = Field(default_factory=list)
    unlisted_limits: LimitList[UnlistedLimit] = Field(default_factory=lambda: [UnlistedLimit(rate="20/s")])
    redis: RedisSettings | None = None
    audit: AuditSettings = Field(default_factory=AuditSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: Address | None = None
    metrics_callers: int = Field(default=0, ge=0, le=1000)
    tracing: TracingSettings | None = None
    selfcheck: SelfcheckMode = "warn"
    reflection: bool = False
    drain: float = Field(default=30.0, ge=0, le=3600)
    _base: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _a_workload_api_where_it_is_used(self) -> Settings:
        used = self.tls.workload_api or bool(self.identity.workload_api)
        if used and self.workload_api is None:
            raise ValueError("tls.workload_api and identity.workload_api need workload_api: {socket: unix:///PATH}")
        if not used and self.workload_api is not None:
            raise ValueError("nothing uses workload_api: set tls.workload_api or identity.workload_api, or remove it")
        return self

    def at(self, path: Path) -> Path:
        """A path of the settings, taken from the settings file's folder. Raises ConfigError."""
        try:
            return self._base / path.expanduser()
        except RuntimeError:
            raise ConfigError(path, "there is no such home folder") from None

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
    file = Document.read(path)
    if not isinstance(file.data, dict):
        raise ConfigError(path, "holds no settings; `livekit-auth-server dev` writes an example")
    values: dict[str, Any] = dict(file.data)
    for name in values:  # pydantic-settings takes names such as _env_file as orders to itself
        if not isinstance(name, str) or name.startswith("_"):
            raise file.error((name,), "there is no such field; check its spelling")
    _check_variables(os.environ)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise _from_environment(error) or file.first_error(error) from None
    except SettingsError as error:
        raise _no_json(error) from None
    settings._base = path.parent  # noqa: SLF001 - this module's own
    return settings


def _check_variables(environment: Iterable[str]) -> None:
    """Refuses a variable that sets nothing, because its author expects an effect. Raises ConfigError."""
    fields = {name.upper() for name in Settings.model_fields} | {_CONFIG}
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(_PREFIX) or _SERVICE_LINK.search(name):
            continue
        if name.removeprefix(_PREFIX).partition("__")[0] not in fields:
            raise ConfigError(f"${variable}", "there is no such setting; check its spelling (docs/configuration.md)")


def _from_environment(error: ValidationError) -> ConfigError | None:
    """The mistake as one of an environment variable, if it is there."""
    _, location, message = first_mistake(error)
    name = _variable(location)
    return ConfigError(f"${name}", message) if name in {variable.upper() for variable in os.environ} else None


def _variable(location: Location) -> str:
    return (_PREFIX + "__".join(str(part) for part in location)).upper()


def _no_json(error: SettingsError) -> ConfigError:
    field = re.search(r'field "(\w+)"', str(error))
    name = _variable((field[1],) if field else ())
    return ConfigError(f"${name}", f"isn't a JSON object; set one field of it instead: {name}__FIELD")
