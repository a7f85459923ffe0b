"""What loads and is probably not meant: CAs whose callers are all refused, names that no request can fit.

Nothing here is an error: a server runs with it. Each doubt is one line that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from livekit_auth_server.core.certificate_names import UNREADABLE
from livekit_auth_server.files.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth_server.core.identity import TrustBundles

_MEND = "make it again with openssl req -x509 -addext"
_USAGE = f"{_MEND} keyUsage=critical,keyCertSign,cRLSign"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_LEAST_RSA_BITS = 2048


def of_bundles(bundles: TrustBundles, now: float) -> Iterator[str]:
    """CAs whose callers are all refused. `now` is in seconds since the epoch."""
    named = {**bundles.domains, **({"DNS names": bundles.dns} if bundles.dns else {})}
    for name, bundle in named.items():
        for authority in bundle:
            if fault := _fault(authority, now):
                yield f"bundle of {name}: callers of the CA {_subject(authority)} are refused: it {fault}"


def _subject(authority: x509.Certificate) -> str:
    try:
        return printable(authority.subject.rfc4514_string()) or "without a subject"
    except UNREADABLE:
        return "with a subject that can't be read"


def _fault(authority: x509.Certificate, now: float) -> str:
    """Why no chain that ends at this CA is accepted; empty when one could be."""
    try:
        return _time_fault(authority, now) or _key_fault(authority) or _extension_fault(authority.extensions)
    except UNREADABLE:
        return "can't be read as a whole"


def _time_fault(authority: x509.Certificate, now: float) -> str:
    if authority.not_valid_after_utc.timestamp() < now:
        return f"expired at {authority.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if authority.not_valid_before_utc.timestamp() > now:
        return f"isn't valid before {authority.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    return ""


def _key_fault(authority: x509.Certificate) -> str:
    key = authority.public_key()
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    if not curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS):
        return "has a key that is neither ECDSA on P-256, P-384 or P-521 nor RSA of 2048 bits or more"
    return "" if list(authority.subject) else "has no subject; make it again with openssl req -x509 -subj /CN=NAME"


def _extension_fault(extensions: x509.Extensions) -> str:
    """RFC 5280 sections 4.2 and 4.2.1, as cryptography's verifier applies them."""
    by_type = {type(extension.value): extension for extension in extensions}
    if any(extension.critical and isinstance(extension.value, x509.UnrecognizedExtension) for extension in extensions):
        return "has a critical extension that this server doesn't know"
    if not by_type[x509.BasicConstraints].critical:  # trust.bundles has seen that it is there
        return f"has basic constraints that aren't critical; {_MEND} basicConstraints=critical,CA:TRUE"
    if (usage := by_type.get(x509.KeyUsage)) is None:
        return f"has no key usage; {_USAGE}"
    if not usage.value.key_cert_sign:
        return f"has a key usage without keyCertSign; {_USAGE}"
    extended = by_type.get(x509.ExtendedKeyUsage)
    if extended is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in extended.value:
        return "has an extended key usage without clientAuth; make it again without one"
    return ""
