"""Workloads and certificates that aren't believed any more, although their time isn't over.

Guarantees: a certificate is named by its serial number together with its issuer, in each way that a list may name the
issuer; a denied certificate refuses every chain that goes through it, not only the leaf's holder; what is asked for a
call is a look-up, however long the list.
Sources: RFC 5280 sections 4.1.2.2 and 5, RFC 4514.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth_server.core.certificate_names import CertificateKey
    from livekit_auth_server.core.identity import Identified

NEVER = sys.maxsize  # when an entry without an end lapses, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Crl:
    """A CRL that is in force: its file, what to call it, what it revokes.

    `next_update` is when its next issue was due, in seconds since the epoch.
    """

    file: str
    name: str
    next_update: int | None
    revoked: frozenset[CertificateKey] = frozenset()

    def stale(self, now: float) -> bool:
        """Whether the next issue is overdue: then newer revocations are missing."""
        return self.next_update is not None and self.next_update < now


@dataclass(frozen=True, slots=True)
class DenyList:
    """Workload ids and certificates that are refused, each until a time in seconds since the epoch.

    `revoked` is what the CRLs revoke, for good. `idle` describes the entries that match nothing now.
    """

    workloads: Mapping[str, int] = field(default_factory=dict)
    certificates: Mapping[CertificateKey, int] = field(default_factory=dict)
    crls: tuple[Crl, ...] = ()
    revoked: frozenset[CertificateKey] = frozenset()
    idle: tuple[str, ...] = ()

    def with_list(self, other: DenyList) -> DenyList:
        """The same CRLs, with the workloads and certificates that another list names."""
        return replace(self, workloads=other.workloads, certificates=other.certificates, idle=other.idle)

    def with_crls(self, other: DenyList) -> DenyList:
        """The same list, with the CRLs of another."""
        return replace(self, crls=other.crls, revoked=other.revoked)

    def check(self, identified: Identified, now: int) -> None:
        """Raises CERTIFICATE_REVOKED when the caller, or a certificate of its chain, is denied now."""
        if now < self.workloads.get(identified.identity.text, 0):
            raise Refusal(Reason.CERTIFICATE_REVOKED, "this workload is on the server's deny-list")
        listed = self.certificates and any(now < self.certificates.get(key, 0) for key in identified.certificates)
        if listed or not self.revoked.isdisjoint(identified.certificates):
            raise Refusal(Reason.CERTIFICATE_REVOKED, "your certificate, or one that it was issued under, is revoked")

    def stale(self, now: float) -> list[Crl]:
        """The CRLs that are overdue."""
        return [crl for crl in self.crls if crl.stale(now)]
