"""The deny-list file: workload ids and certificates that are refused. docs/operations.md shows one.

    version: 1
    deny:
      - {id: spiffe://example.org/ns/web/sa/consult-api, comment: taken over, expires: 2027-01-01T00:00:00Z}
      - {serial: "4f:3a:09", issuer: "CN=example.org CA,O=Example"}
      - {serial: "4f3a09", issuer: "b7:1c:…"}

Guarantees: an entry that could never match (a serial that YAML read as a number, a name that isn't RFC 4514) is an
error with its line; an empty file is one too, so that a half-written list lets nobody in. `deny: []` denies nobody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, BaseModel, ConfigDict, StrictStr, model_validator

from livekit_auth_server.core.certificate_names import UNREADABLE, CertificateKey, by_key_id, by_name, issuer_names
from livekit_auth_server.core.revocation import NEVER, DenyList
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.field_types import (
    Time,  # noqa: TC001 - pydantic reads it
    Version,  # noqa: TC001
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from pathlib import Path

    from livekit_auth_server.files.errors import Location

_HEX = re.compile(r"[0-9A-Fa-f]+(?::[0-9A-Fa-f]+)*\Z")  # one way to match: with several, a typo takes for ever
_SERIAL_DIGITS = 40  # RFC 5280 section 4.1.2.2: 20 bytes
_IDLE_SHOWN = 10
_NO_CALLER = "matches no caller of the policy; check the spelling"
_NO_ISSUER = (
    "matches no CA of the bundles, so the entry counts only for certificates under an intermediate that clients send; "
    "check the spelling"
)
_LEAST_KEY_ID = 8  # hexadecimal digits
_SPACED = re.compile(r"(?<!\\)(^|[,+])\s*([A-Za-z]+|[0-9.]+)\s*=\s*")  # "C = CH, O = …", as openssl prints it
_NAMES = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}


def _workload_id(text: str) -> str:
    return WorkloadId.parse(text).text


def _serial(text: str) -> str:
    digits = text.replace(":", "")
    if not _HEX.match(text) or len(digits.lstrip("0")) > _SERIAL_DIGITS:
        raise ValueError('should be the certificate\'s serial number in hexadecimal, such as "4f3a09" or "4f:3a:09"')
    return digits


def _issuer(text: str) -> str:
    """The issuer as core.revocation writes it."""
    if _HEX.match(text) and len(text.replace(":", "")) >= _LEAST_KEY_ID and len(text.replace(":", "")) % 2 == 0:
        return by_key_id(bytes.fromhex(text.replace(":", "")))
    try:
        name = x509.Name.from_rfc4514_string(_SPACED.sub(r"\1\2=", text), _NAMES)
    except (ValueError, KeyError):
        name = x509.Name([])
    if not list(name):
        raise ValueError('should be the issuer\'s name such as "CN=example CA,O=Example", or its subject key id in hex')
    return by_name(name)


class Entry(BaseModel):
    """One denied workload, or one denied certificate."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Annotated[StrictStr, AfterValidator(_workload_id)] | None = None
    serial: Annotated[StrictStr, AfterValidator(_serial)] | None = None
    issuer: Annotated[StrictStr, AfterValidator(_issuer)] | None = None
    comment: StrictStr = ""
    expires: Time | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Entry:
        if [self.id is None, self.serial is None, self.issuer is None] not in (
            [False, True, True],
            [True, False, False],
        ):
            raise ValueError("needs either id, or serial and issuer together")
        return self


class DenyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Version
    deny: list[Entry]


def _names(authority: x509.Certificate) -> list[str]:
    """The CA's names; none of one that can't be read, which can vouch for nobody."""
    try:
        return list(issuer_names(authority))
    except UNREADABLE:
        return []


def load_deny_file(path: Path, callers: Container[str], authorities: Iterable[x509.Certificate]) -> DenyList:
    """Reads and compiles a deny-list. Raises ConfigError.

    `callers` are the policy's and `authorities` the CAs of the bundles, for saying which entries match nothing.
    """
    file = Document.read(path)
    workloads: dict[str, int] = {}
    certificates: dict[CertificateKey, int] = {}
    issuers = frozenset(name for authority in authorities for name in _names(authority))
    idle: list[tuple[Location, str]] = []
    for index, entry in enumerate(file.validated(DenyFile).deny):
        until = NEVER if entry.expires is None else int(entry.expires.timestamp())
        if entry.id is not None:
            twice = entry.id in workloads
            workloads[entry.id] = until
            if entry.id not in callers:
                idle.append((("deny", index, "id"), _NO_CALLER))
        else:
            key = (str(entry.issuer), int(str(entry.serial), 16))
            twice = key in certificates
            certificates[key] = until
            if key[0] not in issuers:
                idle.append((("deny", index, "issuer"), _NO_ISSUER))
        if twice:
            raise file.error(("deny", index), "duplicate entry; remove one")
    shown = [str(file.error(*one)) for one in idle[:_IDLE_SHOWN]]  # finding a line takes a reading of the file
    more = [f"{path}: {len(idle) - len(shown)} more entries match nothing"] if len(idle) > len(shown) else []
    return DenyList(workloads, certificates, idle=(*shown, *more))
