"""Real certificates for tests, the proper ones and every kind that must be refused."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


Extension = tuple[x509.ExtensionType, bool]  # and whether it is critical


def hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """The hash that this key signs with; Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def name(common_name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


@dataclass(frozen=True)
class Credential:
    """A certificate with its key; `chain` holds the intermediates that it is sent with."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()

    @cached_property
    def leaf_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def chain_pem(self) -> bytes:
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in self.chain)

    @cached_property
    def cert_pem(self) -> bytes:
        """The leaf and its intermediates, as a TLS endpoint is given them."""
        return self.leaf_pem + self.chain_pem

    @cached_property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Writes STEM.pem and STEM.key (mode 0600) and returns their paths."""
        certificate, key = directory / f"{stem}.pem", directory / f"{stem}.key"
        certificate.write_bytes(self.cert_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return certificate, key


@dataclass(frozen=True)
class Authority(Credential):
    """A CA that issues leaves, proper by default and as broken as a test asks."""

    @classmethod
    def create(
        cls,
        common_name: str = "test CA",
        *,
        parent: Authority | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        path_length: int | None = None,
        extensions: Sequence[Extension] = (),
        not_before: dt.datetime = NOW - dt.timedelta(days=1),
        not_after: dt.datetime = NOW + dt.timedelta(days=30),
    ) -> Authority:
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = parent.certificate.subject if parent else name(common_name)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=True, digital_signature=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        signer = parent.key if parent else key
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        chain = (parent.certificate, *parent.chain) if parent and parent.chain_is_intermediate else ()
        return cls(builder.sign(signer, hash_for(signer)), key, chain)

    @property
    def chain_is_intermediate(self) -> bool:
        return self.certificate.issuer != self.certificate.subject

    def issue(
        self,
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        other_names: Sequence[x509.GeneralName] = (),
        common_name: str | None = None,
        ca: bool = False,
        usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT, SERVER),
        digital_signature: bool | None = True,
        key_cert_sign: bool = False,
        crl_sign: bool = False,
        authority_key_identifier: bool = True,
        basic_constraints: bool = True,
        extensions: Sequence[Extension] = (),
        rsa_key: bool = False,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        not_before: dt.datetime = NOW - dt.timedelta(hours=1),
        not_after: dt.datetime = NOW + dt.timedelta(hours=24),
    ) -> Credential:
        """Issues a leaf. `usages` None leaves extended key usage out, `digital_signature` None key usage."""
        key = key or (rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1()))
        names = [x509.UniformResourceIdentifier(u) for u in uris] + [x509.DNSName(d) for d in dns] + list(other_names)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
        if basic_constraints:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=common_name is None)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if digital_signature is not None:
            usage = key_usage(
                digital_signature=digital_signature,
                key_cert_sign=ca or key_cert_sign,
                crl_sign=crl_sign,
                key_agreement=not digital_signature,
            )
            builder = builder.add_extension(usage, critical=True)
        if authority_key_identifier:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        chain = (self.certificate, *self.chain) if self.chain_is_intermediate else ()
        return Credential(builder.sign(self.key, hash_for(self.key)), key, chain)

    def crl(
        self,
        *revoked: Credential,
        issuer: str | None = None,
        next_update: dt.datetime = NOW + dt.timedelta(days=7),
        extensions: Sequence[Extension] = (),
    ) -> bytes:
        """A CRL of this CA in PEM, which revokes these; `issuer` is another CA's name to put on it."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(issuer) if issuer else self.certificate.subject)
            .last_update(next_update - dt.timedelta(days=14))
            .next_update(next_update)
        )
        for credential in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(credential.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hash_for(self.key)).public_bytes(serialization.Encoding.PEM)


def key_usage(
    *, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False, key_agreement: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
