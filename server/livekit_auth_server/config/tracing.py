"""The settings of an OpenTelemetry collector, for traces and the audit trail, and the file of headers for it."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_private
from livekit_auth_server.files.urls import HOST, splits

_ENDPOINT = re.compile(rf"https?://{HOST}/[A-Za-z0-9._~/-]{{1,200}}\Z")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9-]{1,64}):[ \t]*(?P<value>[!-~](?:[ -~]{0,8190}[!-~])?)[ \t]*\Z")
# The exporter's own; others change where a request ends, or to whom it goes.
_RESERVED = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
)


def endpoint_url(text: object) -> str:
    """Checks an OTLP endpoint. Raises ValueError."""
    if isinstance(text, str) and re.match(r"https?://[^/]*@", text):
        raise ValueError("has a user in it; put credentials into a file of headers and name it as headers_file")
    if not isinstance(text, str) or not _ENDPOINT.match(text) or not splits(text):
        raise ValueError('should be the whole url for OTLP over HTTP, such as "http://127.0.0.1:4318/v1/traces"')
    return text


class CollectorSettings(BaseModel):
    """A collector that takes OTLP over HTTP: its url, the headers that it needs, and the CAs of its certificate."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    endpoint: Annotated[str, BeforeValidator(endpoint_url)]
    headers_file: Path | None = None
    ca: Path | None = None

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        plain = self.endpoint.startswith("http://")
        if plain and self.headers_file and urlsplit(self.endpoint).hostname not in _LOOPBACK:
            raise ValueError("headers_file would go over the network in clear: write the endpoint with https://")
        if plain and self.ca:
            raise ValueError("ca is for TLS: write the endpoint with https://")
        return self


class TracingSettings(CollectorSettings):
    """Where spans go. `ratio` is the part of the calls that is recorded where the caller hasn't decided it."""

    ratio: float = Field(default=1.0, ge=0, le=1)


def read_headers(path: Path) -> dict[str, str]:
    """The headers in the file, one `Name: value` a line. Raises ConfigError, which shows no value."""
    try:
        lines = read_private(path).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(path, "isn't ASCII text") from None
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _HEADER.match(line)
        if match is None:
            raise ConfigError(path, "isn't a header: write `Name: value`, one a line", number)
        name = match["name"].lower()
        if name in headers or name in _RESERVED:
            raise ConfigError(path, "duplicate header, or one that the exporter sets itself", number)
        headers[name] = match["value"]
    if not headers:
        raise ConfigError(path, "holds no headers; write `Name: value`, one a line")
    return headers
