"""The sections of server.yaml, as models: what each value may be, and its default. docs/configuration.md lists them."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from livekit_auth_server.config.limits import UnlistedLimit, repeated
from livekit_auth_server.config.tracing import CollectorSettings
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.logs.configure import Format, Level  # noqa: TC001 - pydantic reads them

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}\Z")
_HIGHEST_PORT = 65535
_URL = re.compile(r"(?:wss?|https?)://[^\s/?#@]+(?:/[^\s?#]*)?\Z")


def listen_address(text: object) -> str:
    """Checks HOST:PORT. Raises ValueError."""
    if not isinstance(text, str) or not _ADDRESS.match(text) or int(text.rsplit(":", 1)[1]) > _HIGHEST_PORT:
        raise ValueError('should be HOST:PORT, such as "127.0.0.1:7443" or "[::1]:7443"')
    return text


def client_url(text: object) -> str:
    """Checks the url of a LiveKit server. Raises ValueError."""
    if not isinstance(text, str) or not _URL.match(text):
        raise ValueError('should be the url that clients connect to, such as "wss://livekit.example.org"')
    return text


def _variable_name(text: str) -> str:
    if not _VARIABLE.match(text):
        raise ValueError(
            "isn't the name of an environment variable: A-Z, 0-9 and _; the variable itself holds the keys"
        )
    return text


def _trust_domain(text: str) -> str:
    if not _TRUST_DOMAIN.match(text):
        raise ValueError('isn\'t a trust domain such as example.org: a-z, 0-9, ".", "-" and "_", without "spiffe://"')
    return text


def _spiffe_id(text: str) -> str:
    WorkloadId.parse(text)
    if not text.startswith("spiffe://"):
        raise ValueError("isn't a SPIFFE id such as spiffe://example.org/livekit-auth")
    return text


def _off(value: object) -> object:
    """YAML 1.1, which Helm and other tools read, takes a bare `off` for false."""
    return "off" if value is False else value


L = TypeVar("L", bound=UnlistedLimit)


def _different(limits: list[L]) -> list[L]:
    if repeated(entry.limit() for entry in limits) is not None:
        raise ValueError("duplicate limit; remove one")
    return limits


LimitList = Annotated[list[L], AfterValidator(_different)]
Address = Annotated[str, BeforeValidator(listen_address)]
SelfcheckMode = Annotated[Literal["enforce", "warn", "off"], BeforeValidator(_off)]
"""What a difference from livekit-api does: stop issuing, warn, or nothing, since there is no check."""
TrustDomain = Annotated[str, AfterValidator(_trust_domain)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class TlsSettings(_Model):
    """The server's certificate chain and its ECDSA key: PEM files, or the SVID that the Workload API gives."""

    certificate: Path | None = None
    key: Path | None = None
    workload_api: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> TlsSettings:
        given = (self.certificate is not None, self.key is not None)
        if given != ((False, False) if self.workload_api else (True, True)):
            raise ValueError("needs certificate and key, or workload_api: true without them")
        return self


class WorkloadApiSettings(_Model):
    """The SPIFFE Workload API: its socket, the id to take of several, seconds to wait for the first SVID."""

    socket: str | None = None
    id: Annotated[str, AfterValidator(_spiffe_id)] | None = None
    patience: float = Field(default=30.0, ge=0.1, le=600)


class IdentitySettings(_Model):
    """Whose certificates are believed: a CA bundle for each SPIFFE trust domain, and one for DNS names if enabled.

    `workload_api` names the domains whose bundles come from there. `deny_list` and `crls` name who isn't any more.
    """

    trust_domains: dict[TrustDomain, Path] = Field(default_factory=dict)
    workload_api: list[TrustDomain] = Field(default_factory=list)
    dns_bundle: Path | None = None
    deny_list: Path | None = None
    crls: list[Path] = Field(default_factory=list)

    @model_validator(mode="after")
    def _some(self) -> IdentitySettings:
        if not self.trust_domains and not self.workload_api and self.dns_bundle is None:
            raise ValueError("needs at least one of trust_domains, workload_api and dns_bundle")
        if twice := sorted(self.trust_domains.keys() & set(self.workload_api)):
            raise ValueError(f"{twice[0]} is in trust_domains and in workload_api; remove one")
        return self


class KeysSettings(_Model):
    """Where a project's API keys are: exactly one of the three."""

    file: Path | None = None
    directory: Path | None = None
    environment: Annotated[str, AfterValidator(_variable_name)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, data: object) -> object:
        """Runs before unknown fields are named: a user who writes the keys themselves here may have swapped a pair."""
        if isinstance(data, cls):
            return data
        given = {name for name, value in data.items() if value is not None} if isinstance(data, dict) else set()
        if len(given) != 1 or not given <= cls.model_fields.keys():
            raise ValueError("names where the keys are, by exactly one of file, directory and environment")
        return data


class ProjectSettings(_Model):
    """A LiveKit project: the url that its clients connect to, and its keys."""

    url: Annotated[str, BeforeValidator(client_url)]
    keys: KeysSettings


class WebhookSettings(_Model):
    """Bounds of webhook checks: bytes of a body, seconds that an acknowledgement is remembered, how many a caller."""

    max_body: int = Field(default=1024 * 1024, ge=1024, le=3 * 1024 * 1024)
    remember: int = Field(default=24 * 3600, ge=60, le=30 * 24 * 3600)
    remember_per_caller: int = Field(default=20_000, ge=100, le=10_000_000)


class AuditOtlpSettings(CollectorSettings):
    """A collector that gets a copy of the audit trail. If it is `required`, issuance stops while it takes none."""

    required: bool = False


class AuditSettings(_Model):
    """Where the audit trail is kept: a folder with a file per worker, or the log without `path`; and a copy by OTLP.

    `patience` is how long a decision waits for the disk, in seconds, and how long a required collector may take none.
    """

    path: Path | None = None
    required: bool = False
    patience: float = Field(default=2.0, ge=0.1, le=60)
    otlp: AuditOtlpSettings | None = None

    @model_validator(mode="after")
    def _a_path_where_it_is_required(self) -> AuditSettings:
        if self.required and self.path is None:
            raise ValueError("required needs a path: log lines are best effort")
        return self


class LogSettings(_Model):
    """How to log: "json", "console", or "auto" for console on a terminal and JSON elsewhere.

    `decisions` has each decision logged for people, beside the audit trail.
    """

    format: Format = "auto"
    level: Level = "info"
    decisions: bool = False


class LimitSettings(_Model):
    """Bounds on what clients can make the server hold. Sizes are in bytes, times in seconds."""

    metadata: int = Field(default=8192, ge=1024, le=65536)
    connections: int = Field(default=1500, ge=1, le=100_000)
    streams_per_connection: int = Field(default=100, ge=1, le=10_000)
    concurrent_calls: int = Field(default=4000, ge=1, le=100_000)
    handshake: float = Field(default=3.0, ge=0.1, le=120)
    request_bytes: int = Field(default=48 * 1024 * 1024, ge=32 * 1024 * 1024, le=1 << 40)
    first_call: float = Field(default=30.0, ge=1)
    connection_idle: float = Field(default=600.0, ge=1)
    connection_age: float = Field(default=3600.0, ge=1)
    connection_age_grace: float = Field(default=30.0, ge=0)
