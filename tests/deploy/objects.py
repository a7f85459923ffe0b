"""The Secrets and ConfigMaps that a chart's values name, with real certificates and keys in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.pki import SERVER, Authority

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "chart-secret-MARKER-0123456789abcdef"
CALLER = "spiffe://example.org/ns/web/sa/consult-api"
POLICY = f"""\
version: 1
roles: {{guest: {{video: {{room_join: true}}}}}}
callers:
  - {{id: "{CALLER}", allow: [{{projects: [default], roles: [guest], rooms: any, identities: any}}]}}
"""


@dataclass(frozen=True)
class Objects:
    """A CA for callers, one for DNS names, and everything that the variants name."""

    callers: Authority = field(default_factory=lambda: Authority.create("example.org CA"))
    internal: Authority = field(default_factory=lambda: Authority.create("internal CA"))

    def all(self) -> Mapping[str, Mapping[str, bytes]]:
        server = self.internal.issue(dns=["localhost"], usages=[SERVER])
        pair = {"tls.crt": server.cert_pem, "tls.key": server.key_pem}
        return {
            "livekit-keys": {"keys.yaml": f"APIchart: {SECRET}\n".encode()},
            "livekit-auth-tls": pair,
            "example-org-bundle": {"ca.pem": self.callers.leaf_pem},
            "internal-ca": {"ca.crt": self.internal.leaf_pem},
            "example-org-crls": {"crls.pem": self.callers.crl()},
            "livekit-policy": {"policy.yaml": POLICY.encode()},
            "deny": {"deny.yaml": b"version: 1\ndeny: []\n"},
            "redis": {"password": b"redis-password\n"},
            "redis-ca": {"ca.pem": self.internal.leaf_pem},
        }
