"""What a workload's certificate must be, the identity in it, and the chain that leads from it to a CA.

Guarantees: the identity comes from the leaf's subject alternative name and nothing else; a chain that isn't accepted
costs a few signature checks; what is unusual is refused.
Sources: X509-SVID.md sections 2 to 5, RFC 5280 section 6.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

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

from livekit_auth_server.core.certificate_names import UNREADABLE
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.workload_id import WorkloadId

_MAX_SIGNATURES = 8  # that are checked to find the intermediates that a CA of the bundle vouches for
_CURVES = (ec.SECP256R1, ec.SECP384R1)  # what SPIRE, Istio and cert-manager issue; P-521 costs ten times as much
_RSA_BITS = range(2048, 4096 + 1)
CertificateBundle = tuple[x509.Certificate, ...]


def check_leaf(extensions: x509.Extensions) -> None:
    """X509-SVID section 4: a leaf is no CA, allows clients, signs digitally and never certificates or CRLs."""
    if any(e.critical and isinstance(e.value, x509.UnrecognizedExtension) for e in extensions):
        raise invalid_certificate("it has a critical extension that this server doesn't know")  # RFC 5280 section 4.2
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise invalid_certificate("it is a CA certificate")
    except x509.ExtensionNotFound:
        pass
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
            raise invalid_certificate("its extended key usage doesn't allow clients")
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise invalid_certificate(
            "its key usage isn't a workload's: digitalSignature, and no signing of certificates or CRLs"
        )


def check_key(key: object, whose: str) -> None:
    """The kinds of keys that issuers of SVIDs use. TLS would take an RSA key of 1024 bits, or of 16,384."""
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    if not curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS):
        raise invalid_certificate(f"{whose} is neither ECDSA on P-256 or P-384 nor RSA of 2048 to 4096 bits")


def identity_of(extensions: x509.Extensions, *, dns_enabled: bool) -> WorkloadId:
    """The one identity in the subject alternative name. The subject's common name is never looked at."""
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise invalid_certificate("it has no subject alternative name") from None
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    dns = [name.value for name in names if isinstance(name, x509.DNSName)]
    if len(uris) == 1:
        text = uris[0]
        if not text.startswith("spiffe://"):
            raise invalid_certificate("its URI isn't a SPIFFE id")
    elif not uris and dns_enabled and len(dns) == len(names) == 1:
        text = f"dns:{dns[0]}"
    else:
        wanted = "exactly one URI, or nothing but one DNS name," if dns_enabled else "exactly one URI"
        raise invalid_certificate(
            f"its subject alternative name must hold {wanted} and holds {len(uris)} URIs of {len(names)} names"
        )
    try:
        return WorkloadId.parse(text)
    except ValueError as error:
        raise invalid_certificate(str(error)) from None


def verified_chain(
    leaf: x509.Certificate, intermediates: list[x509.Certificate], bundle: CertificateBundle, now: int
) -> list[x509.Certificate]:
    """The path from the leaf to a CA of the bundle (RFC 5280 section 6), leaf first."""
    builder = PolicyBuilder().store(_store(bundle)).time(dt.datetime.fromtimestamp(now, dt.UTC))
    builder = builder.extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
    try:
        vouched = _vouched(intermediates, bundle) if intermediates else []
        return builder.build_client_verifier().verify(leaf, vouched).chain
    except (VerificationError, *UNREADABLE):
        if not all(valid_at(certificate, now) for certificate in intermediates):
            message = "a certificate of the chain that you sent isn't valid at this time; renew it"
            raise Refusal(Reason.CERTIFICATE_EXPIRED, message) from None
        raise invalid_certificate("its chain doesn't lead to a CA of its own trust domain that is valid now") from None


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
                check_key(certificate.public_key(), "the key of a certificate of its chain")
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
# in check_leaf.
_CA_POLICY = ExtensionPolicy.webpki_defaults_ca()


_LEAF_POLICY = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def valid_at(certificate: x509.Certificate, now: int) -> bool:
    """Whether this is within the certificate's time, both ends included (RFC 5280 section 4.1.2.5)."""
    return seconds(certificate.not_valid_before_utc) <= now <= seconds(certificate.not_valid_after_utc)


def seconds(time: dt.datetime) -> int:
    """Whole seconds since the epoch."""
    return int(time.timestamp())


def invalid_certificate(why: str) -> Refusal:
    """The refusal of a certificate."""
    return Refusal(Reason.CERTIFICATE_INVALID, f"your client certificate isn't accepted: {why}")
