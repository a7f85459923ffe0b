"""How spans and audit records travel to an OpenTelemetry collector: OTLP over HTTP, as the settings say.

Guarantees: the environment's proxies, .netrc and OTEL_EXPORTER_OTLP_* change neither where requests go nor their
headers; no redirect is followed; what goes wrong is named in this program's words, never in the collector's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MULTIPLE_CHOICES = 300  # the first HTTP status that isn't a success


class CollectorSession(requests.Session):
    """Posts with these headers and no others.

    `problem` says what went wrong last, empty if nothing did; `answer` is the body of the last success.
    """

    def __init__(self, headers: Mapping[str, str], ca: Path | None) -> None:
        super().__init__()
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # its lines quote what others sent
        self.trust_env = False
        self.problem, self.answer = "", b""
        self._sent = {"content-type": "application/x-protobuf", "content-encoding": "gzip", **headers}
        self._authorities: bool | str = str(ca) if ca else True

    def __repr__(self) -> str:
        return "CollectorSession(***)"

    def request(self, method: str, url: str, **more: Any) -> requests.Response:  # type: ignore[override]  # noqa: ANN401
        """Posts as the settings say, whatever the library asks for."""
        self.answer = b""
        more |= {"headers": self._sent, "verify": self._authorities, "cert": None, "allow_redirects": False}
        try:
            response = super().request(method, url, **more)
        except Exception as error:
            self.problem = type(error).__name__
            raise
        if response.status_code < _MULTIPLE_CHOICES:
            self.problem, self.answer = "", response.content
        else:
            self.problem = f"HTTP status {response.status_code}"
        return response
