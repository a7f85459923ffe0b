"""Who the caller is: client certificate (+ the intermediates it sent) → `WorkloadId`, strictly.

Guarantees: a `WorkloadId` exists only where parsing succeeded; the identity comes from the leaf's subject alternative
name and nothing else; the chain leads to the bundle of the leaf's *own* trust domain, so that a CA of one domain can't
sign a name of another; nothing is normalised, and what is unusual is refused; a certificate that isn't accepted costs a
few signature checks, and only so many of them are judged in a second.
Sources: SPIFFE-ID.md section 2, X509-SVID.md sections 2 to 5, RFC 5280 section 6.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.revocation import UNREADABLE, CertificateKey, certificate_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+"
_SPIFFE_ID = re.compile(rf"spiffe://(?P<domain>{_TRUST_DOMAIN})(?:/{_SEGMENT})+\Z")
_SPIFFE_ID_LIMIT = 2048  # bytes, SPIFFE-ID section 2.3
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_LAST_LABEL_IS_NUMERIC = re.compile(r"(?:.*\.)?[0-9]+\Z")
_MAX_CHAIN_BYTES = 64 * 1024
_MAX_INTERMEDIATES = 8
_MAX_SIGNATURES = 8  # that are checked to find the intermediates that a CA of the bundle vouches for
_CACHED_CERTIFICATES = 4096
_CACHED_REFUSALS, _REFUSAL_SECONDS = 1024, 5
_REFUSALS_PER_SECOND, _REFUSALS_PER_SOURCE = 20, 5
_CURVES = (ec.SECP256R1, ec.SECP384R1)  # what SPIRE, Istio and cert-manager issue; P-521 costs ten times as much
_IPV6 = 6
_RSA_BITS = range(2048, 4096 + 1)

CertificateBundle = tuple[x509.Certificate, ...]


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
        """Raises RATE_LIMITED when no more may be judged in this second."""
        if now != self.time:
            self.time, self.total, self.by_source = now, 0, {}
        refused = self.by_source.get(source, 0)
        if refused >= _REFUSALS_PER_SOURCE or (refused and self.total >= _REFUSALS_PER_SECOND):
            message = "too many certificates were refused in this second; try again in 1 s"
            raise Refusal(Reason.RATE_LIMITED, message, retry_after=1.0)

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

        Raises IDENTITY_INVALID or CERTIFICATE_EXPIRED, and RATE_LIMITED for a certificate that isn't known to hold
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
            if refusal.reason is Reason.RATE_LIMITED:
                raise
            if len(self._refused) >= _CACHED_REFUSALS:
                self._refused.clear()
            self._refused[key] = (refusal.reason, refusal.message, now)
            raise

    def _verify(self, leaf_pem: bytes, chain_pem: bytes, now: int, source: str) -> Identified:
        if len(leaf_pem) + len(chain_pem) > _MAX_CHAIN_BYTES:
            raise _invalid("the certificates are too large")
        try:
            (leaf,) = x509.load_pem_x509_certificates(leaf_pem)
            intermediates = x509.load_pem_x509_certificates(chain_pem) if chain_pem.strip() else []
            extensions, public_key = leaf.extensions, leaf.public_key()
        except UNREADABLE:
            raise _invalid("the certificate can't be read") from None
        if len(intermediates) > _MAX_INTERMEDIATES:
            raise _invalid(f"it comes with more than {_MAX_INTERMEDIATES} other certificates")
        _check_leaf(extensions)
        _check_key(public_key, "its key")
        identity = _identity(extensions, dns_enabled=self.bundles.dns is not None)
        if not _valid_at(leaf, now):
            raise Refusal(Reason.CERTIFICATE_EXPIRED, "your certificate isn't valid at this time; renew it")
        bundle = self.bundles.for_identity(identity)
        if not bundle:
            raise _invalid("its trust domain isn't one that this server trusts")
        source = _site(source)
        self._second.check(source, now)  # what comes now is dear
        try:
            chain = _verified_chain(leaf, intermediates, bundle, now)
        except Refusal:
            self._second.count(source)
            raise
        try:
            certificates = certificate_keys(chain)
        except UNREADABLE:
            raise _invalid("a certificate of its chain can't be read") from None
        return Identified(
            identity=identity,
            serial=f"{leaf.serial_number:x}",
            valid_from=max(_seconds(certificate.not_valid_before_utc) for certificate in chain),
            valid_until=min(_seconds(certificate.not_valid_after_utc) for certificate in chain),
            certificates=certificates,
        )


def _check_leaf(extensions: x509.Extensions) -> None:
    """X509-SVID section 4: a leaf is no CA, allows clients, signs digitally and never certificates or CRLs."""
    if any(e.critical and isinstance(e.value, x509.UnrecognizedExtension) for e in extensions):
        raise _invalid("it has a critical extension that this server doesn't know")  # RFC 5280 section 4.2
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise _invalid("it is a CA certificate")
    except x509.ExtensionNotFound:
        pass
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
            raise _invalid("its extended key usage doesn't allow clients")
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise _invalid("its key usage isn't a workload's: digitalSignature, and no signing of certificates or CRLs")


def _check_key(key: object, whose: str) -> None:
    """The kinds of keys that issuers of SVIDs use. TLS would take an RSA key of 1024 bits, or of 16,384."""
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    if not curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS):
        raise _invalid(f"{whose} is neither ECDSA on P-256 or P-384 nor RSA of 2048 to 4096 bits")


def _identity(extensions: x509.Extensions, *, dns_enabled: bool) -> WorkloadId:
    """The one identity in the subject alternative name. The subject's common name is never looked at."""
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise _invalid("it has no subject alternative name") from None
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    dns = [name.value for name in names if isinstance(name, x509.DNSName)]
    if len(uris) == 1:
        text = uris[0]
        if not text.startswith("spiffe://"):
            raise _invalid("its URI isn't a SPIFFE id")
    elif not uris and dns_enabled and len(dns) == len(names) == 1:
        text = f"dns:{dns[0]}"
    else:
        wanted = "exactly one URI, or nothing but one DNS name," if dns_enabled else "exactly one URI"
        raise _invalid(
            f"its subject alternative name must hold {wanted} and holds {len(uris)} URIs of {len(names)} names"
        )
    try:
        return WorkloadId.parse(text)
    except ValueError as error:
        raise _invalid(str(error)) from None


def _verified_chain(
    leaf: x509.Certificate, intermediates: list[x509.Certificate], bundle: CertificateBundle, now: int
) -> list[x509.Certificate]:
    """The path from the leaf to a CA of the bundle (RFC 5280 section 6), leaf first."""
    builder = PolicyBuilder().store(_store(bundle)).time(dt.datetime.fromtimestamp(now, dt.UTC))
    builder = builder.extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
    try:
        vouched = _vouched(intermediates, bundle) if intermediates else []
        return builder.build_client_verifier().verify(leaf, vouched).chain
    except (VerificationError, *UNREADABLE):
        if not all(_valid_at(certificate, now) for certificate in intermediates):
            message = "a certificate of the chain that you sent isn't valid at this time; renew it"
            raise Refusal(Reason.CERTIFICATE_EXPIRED, message) from None
        raise _invalid("its chain doesn't lead to a CA of its own trust domain that is valid now") from None


def _vouched(intermediates: list[x509.Certificate], bundle: CertificateBundle) -> list[x509.Certificate]:
    """The intermediates that a CA of the bundle has signed, or one of these has.

    Found from the CAs down, in a few signature checks: the verifier goes up from the leaf along names that anybody can
    write, and tries what it meets in every order.
    """
    vouched: list[x509.Certificate] = []
    rest = [certificate for certificate in dict.fromkeys(intermediates) if certificate not in bundle]
    issuers, checks = list(bundle), 0
    while issuers and rest:
        issuer = issuers.pop()
        for certificate in [candidate for candidate in rest if candidate.issuer == issuer.subject]:
            if checks == _MAX_SIGNATURES:
                return vouched
            checks += 1
            if _signed(certificate, issuer):
                _check_key(certificate.public_key(), "the key of a certificate of its chain")
                rest.remove(certificate)
                vouched.append(certificate)
                issuers.append(certificate)
    return vouched


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, *UNREADABLE):
        return False
    return True


@lru_cache(maxsize=64)
def _store(bundle: CertificateBundle) -> Store:
    return Store(list(bundle))


# webpki's default for leaves wants an authority key identifier, which X509-SVID doesn't. What a leaf may be is checked
# in _check_leaf.
_CA_POLICY = ExtensionPolicy.webpki_defaults_ca()
_LEAF_POLICY = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _valid_at(certificate: x509.Certificate, now: int) -> bool:
    """Whether this is within the certificate's time, both ends included (RFC 5280 section 4.1.2.5)."""
    return _seconds(certificate.not_valid_before_utc) <= now <= _seconds(certificate.not_valid_after_utc)


def _site(source: str) -> str:
    """The address that a call comes from; of IPv6 the /64, since one machine has all of it."""
    try:
        address = ip_address(unquote(source).removeprefix("ipv6:").strip("[]").partition("%")[0])
    except ValueError:
        return source
    return str(ip_network((address, 64), strict=False)) if address.version == _IPV6 else source


def _seconds(time: dt.datetime) -> int:
    return int(time.timestamp())


def _invalid(why: str) -> Refusal:
    return Refusal(Reason.IDENTITY_INVALID, f"your client certificate isn't accepted: {why}")
