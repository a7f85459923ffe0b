"""The settings of a Redis or Valkey that servers share."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from livekit_auth_server.files.urls import HOST, splits

WhenUnavailable = Literal["local", "refuse"]

_URL = re.compile(rf"(?:rediss?://(?:[^\s/?#@:%]+@)?{HOST}(?:/[0-9]{{0,4}})?|unix:///[^\s?#]+)\Z")


def redis_url(text: object) -> str:
    """Checks a Redis url without a password. Raises ValueError."""
    if isinstance(text, str) and re.match(r"[a-z]+://[^/]*:[^/]*@", text):
        raise ValueError("has a password in it; put that into a file and name it as password_file")
    if not isinstance(text, str) or not _URL.match(text) or not splits(text):
        raise ValueError('should be such as "rediss://redis.example.org:6379/0" or "unix:///run/redis.sock"')
    return text


class RedisSettings(BaseModel):
    """Where Redis is, and what to do without it. `timeout` is in seconds and bounds what a call waits for Redis."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    url: Annotated[str, BeforeValidator(redis_url)]
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    prefix: Annotated[str, Field(pattern=r"^[!-z|~]{0,64}$")] = "livekit-auth:"
    timeout: float = Field(default=0.05, ge=0.001, le=5)
    when_unavailable: WhenUnavailable = "local"

    @model_validator(mode="after")
    def _tls(self) -> RedisSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key need each other")
        if (self.ca or self.certificate) and not self.url.startswith("rediss://"):
            raise ValueError("ca, certificate and key are for TLS: write the url with rediss://")
        return self
