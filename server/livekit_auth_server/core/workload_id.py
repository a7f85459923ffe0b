"""The name of a workload, parsed strictly: a `WorkloadId` exists only where parsing succeeded. Nothing is normalised.

Source: SPIFFE-ID.md section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+"
_SPIFFE_ID = re.compile(rf"spiffe://(?P<domain>{_TRUST_DOMAIN})(?:/{_SEGMENT})+\Z")
_SPIFFE_ID_LIMIT = 2048  # bytes, SPIFFE-ID section 2.3
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_LAST_LABEL_IS_NUMERIC = re.compile(r"(?:.*\.)?[0-9]+\Z")


@dataclass(frozen=True, slots=True)
class WorkloadId:
    """A workload identity: "spiffe://DOMAIN/PATH" or, where DNS names are enabled, "dns:NAME"."""

    text: str
    trust_domain: str | None

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> WorkloadId:
        """Parses "spiffe://…" or "dns:…". Raises ValueError for anything that isn't exactly that."""
        if text.startswith("dns:"):
            name = text.removeprefix("dns:")
            if not _DNS_NAME.match(name) or _LAST_LABEL_IS_NUMERIC.match(name):
                raise ValueError("not a DNS name in lower case, without wildcard or trailing dot")
            return cls(text, None)
        match = _SPIFFE_ID.match(text)
        if match is None or len(text) > _SPIFFE_ID_LIMIT:
            raise ValueError(
                "not a SPIFFE id: spiffe://trust-domain/path, lower-case domain, no escapes or empty segments"
            )
        return cls(text, match["domain"])
