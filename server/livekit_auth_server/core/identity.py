"""Who the caller is: client certificate (+ the intermediates it sent) → `WorkloadId`, strictly.

Guarantees: a `WorkloadId` exists only where parsing succeeded; the identity comes from the leaf's subject alternative
name and nothing else; the chain leads to the bundle of the leaf's *own* trust domain, so that a CA of one domain can't
sign a name of another; nothing is normalised, and what is unusual is refused; a certificate that isn't accepted costs a
few signature checks, and only so many of them are judged in a second.
Sources: SPIFFE-ID.md section 2, X509-SVID.md sections 2 to 5, RFC 5280 section 6.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cryptography import x509

from livekit_auth_server.core.certificate_chain import (
    CertificateBundle,
    check_key,
    check_leaf,
    identity_of,
    invalid_certificate,
    seconds,
    valid_at,
    verified_chain,
)
from livekit_auth_server.core.certificate_names import UNREADABLE, CertificateKey, certificate_keys
from livekit_auth_server.core.refusal import Overload, Reason, Refusal, overloaded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth_server.core.workload_id import WorkloadId

_MAX_CHAIN_BYTES = 64 * 1024
_MAX_INTERMEDIATES = 8
_CACHED_CERTIFICATES = 4096
_CACHED_REFUSALS, _REFUSAL_SECONDS = 1024, 5
_REFUSALS_PER_SECOND, _REFUSALS_PER_SOURCE = 20, 5
_IPV6 = 6


@dataclass(frozen=True, slots=True)
class TrustBundles:
    """The CA certificates of each trust domain and, if DNS names are enabled, those that may sign DNS names."""

    domains: Mapping[str, CertificateBundle]
    dns: CertificateBundle | None = None

    def for_identity(self, identity: WorkloadId) -> CertificateBundle | None:
        """The bundle that must have signed this identity; None when its domain isn't trusted."""
        return self.dns if identity.trust_domain is None else self.domains.get(identity.trust_domain)

    @property
    def union(self) -> CertificateBundle:
        """Every CA certificate, for the TLS handshake."""
        every = [*self.domains.values(), *([self.dns] if self.dns else [])]
        return tuple(dict.fromkeys(certificate for bundle in every for certificate in bundle))


@dataclass(frozen=True, slots=True)
class Identified:
    """A caller whose certificate holds; `valid_from` and `valid_until` are seconds since the epoch, for the chain.

    `certificates` names the certificates of the chain as a deny-list does.
    """

    identity: WorkloadId
    serial: str
    valid_from: int
    valid_until: int
    certificates: frozenset[CertificateKey] = frozenset()

    def holds(self, now: int) -> bool:
        """Whether this is within the chain's time."""
        return self.valid_from <= now <= self.valid_until


@dataclass(slots=True)
class _Second:
    """The certificates whose chain was refused in one second, in all and for each source.

    A source without a refusal is always judged, so that those who flood keep no newcomer elsewhere out.
    """

    time: int = 0
    total: int = 0
    by_source: dict[str, int] = field(default_factory=dict)

    def check(self, source: str, now: int) -> None:
        """Raises OVERLOADED when no more may be judged in this second."""
        if now != self.time:
            self.time, self.total, self.by_source = now, 0, {}
        refused = self.by_source.get(source, 0)
        if refused >= _REFUSALS_PER_SOURCE or (refused and self.total >= _REFUSALS_PER_SECOND):
            raise overloaded(Overload.CERTIFICATES, "too many certificates were refused in this second")

    def count(self, source: str) -> None:
        self.total += 1
        self.by_source[source] = self.by_source.get(source, 0) + 1


@dataclass(slots=True)
class Identifier:
    """Identifies callers against one set of bundles; remembers the certificates that it has verified.

    A new set of bundles is a new `Identifier`, so nothing that an old bundle vouched for is remembered.
    """

    bundles: TrustBundles
    _verified: dict[bytes, Identified] = field(default_factory=dict)
    _refused: dict[bytes, tuple[Reason, str, int]] = field(default_factory=dict)
    _second: _Second = field(default_factory=_Second)

    def identify(self, leaf_pem: bytes, chain_pem: bytes, now: int, source: str = "") -> Identified:
        """The caller with this certificate, from this address. Times are checked at every call, the rest once.

        Raises CERTIFICATE_INVALID or CERTIFICATE_EXPIRED, and OVERLOADED for a certificate that isn't known to hold
        while too many others are refused.
        """
        # By digest: a caller may send what chain it likes, and its bytes aren't worth keeping.
        key = hashlib.sha256(leaf_pem).digest() + hashlib.sha256(chain_pem).digest()
        known = self._verified.get(key)
        if known is None or not known.holds(now):  # then another path may still hold
            known = self._judge(key, leaf_pem, chain_pem, now, source)
            if len(self._verified) >= _CACHED_CERTIFICATES:
                self._verified.clear()  # rare, and dearer to track use at every call than to verify again
            self._verified[key] = known
        return known

    def _judge(self, key: bytes, leaf_pem: bytes, chain_pem: bytes, now: int, source: str) -> Identified:
        reason, message, since = self._refused.get(key, (None, "", 0))
        if reason is not None and 0 <= now - since < _REFUSAL_SECONDS:
            raise Refusal(reason, message)
        try:
            return self._verify(leaf_pem, chain_pem, now, source)
        except Refusal as refusal:
            if refusal.reason is Reason.OVERLOADED:
                raise
            if len(self._refused) >= _CACHED_REFUSALS:
                self._refused.clear()
            self._refused[key] = (refusal.reason, refusal.message, now)
            raise

    def _verify(self, leaf_pem: bytes, chain_pem: bytes, now: int, source: str) -> Identified:
        if len(leaf_pem) + len(chain_pem) > _MAX_CHAIN_BYTES:
            raise invalid_certificate("the certificates are too large")
        try:
            (leaf,) = x509.load_pem_x509_certificates(leaf_pem)
            intermediates = x509.load_pem_x509_certificates(chain_pem) if chain_pem.strip() else []
            extensions, public_key = leaf.extensions, leaf.public_key()
        except UNREADABLE:
            raise invalid_certificate("the certificate can't be read") from None
        if len(intermediates) > _MAX_INTERMEDIATES:
            raise invalid_certificate(f"it comes with more than {_MAX_INTERMEDIATES} other certificates")
        check_leaf(extensions)
        check_key(public_key, "its key")
        identity = identity_of(extensions, dns_enabled=self.bundles.dns is not None)
        if not valid_at(leaf, now):
            raise Refusal(Reason.CERTIFICATE_EXPIRED, "your certificate isn't valid at this time; renew it")
        bundle = self.bundles.for_identity(identity)
        if not bundle:
            raise invalid_certificate("its trust domain isn't one that this server trusts")
        source = _site(source)
        self._second.check(source, now)  # what comes now is dear
        try:
            chain = verified_chain(leaf, intermediates, bundle, now)
        except Refusal:
            self._second.count(source)
            raise
        try:
            certificates = certificate_keys(chain)
        except UNREADABLE:
            raise invalid_certificate("a certificate of its chain can't be read") from None
        return Identified(
            identity=identity,
            serial=f"{leaf.serial_number:x}",
            valid_from=max(seconds(certificate.not_valid_before_utc) for certificate in chain),
            valid_until=min(seconds(certificate.not_valid_after_utc) for certificate in chain),
            certificates=certificates,
        )


def _site(source: str) -> str:
    """The address that a call comes from; of IPv6 the /64, since one machine has all of it."""
    try:
        address = ip_address(unquote(source).removeprefix("ipv6:").strip("[]").partition("%")[0])
    except ValueError:
        return source
    return str(ip_network((address, 64), strict=False)) if address.version == _IPV6 else source
