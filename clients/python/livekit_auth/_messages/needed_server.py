"""Which server this client needs: one that speaks the newest revision of the contract that the client's stubs know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livekit_auth.v1.auth_service_pb2 import ContractRevision

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from livekit_auth._messages.errors import Failure

REVISION = max(ContractRevision.values())
"""The newest revision of the contract that this client knows."""
RELEASE = ContractRevision.Name(REVISION).removeprefix("CONTRACT_REVISION_").replace("_", ".")
"""The release that brought it, such as "0.2.0"."""
NEEDS = f"this client needs a server of {RELEASE} or later"

_Descriptor = Any  # its type differs between protobuf's implementations


def explain(failure: Failure, request: type[Message]) -> str:
    """Says which field or method the server lacks, from FIELD_UNKNOWN or UNIMPLEMENTED."""
    kind = request.DESCRIPTOR
    if failure.code == "UNIMPLEMENTED":
        return f"the server doesn't have the method {kind.name.removesuffix('Request')}; {NEEDS} ({failure.message})"
    version = failure.metadata.get("server_version", "")
    path = failure.metadata.get("field_path", "")
    name = _field(kind, path, failure.metadata.get("field_number", ""))
    return f"the server {version}".rstrip() + f" doesn't know {name} of {kind.name}; {NEEDS}"


def _field(kind: _Descriptor, path: str, number: str) -> str:
    """The unknown field by the client's own names; by its number if the client doesn't know it either."""
    if not number:  # it comes after more fields than the server looks at
        return "a field"
    try:
        for step in filter(None, path.split(".")):
            kind = kind.fields_by_name[step.partition("[")[0]].message_type
        name = kind.fields_by_number[int(number)].name
    except (AttributeError, LookupError, ValueError, OverflowError):  # whatever a server says
        return f"the field number {number}" + (f" in {path}" if path else "")
    return f"the field {path}.{name}" if path else f"the field {name}"
