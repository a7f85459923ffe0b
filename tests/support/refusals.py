"""How a refused call looks to a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Refused:
    """A refusal's code, reason, message, metadata, the paths of the fields at fault, and when to try again."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    fields: tuple[str, ...]
    retry_after: float | None = None


def refusal(call: Callable[[], object]) -> Refused:
    """Makes a call that must fail, and returns how it did."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refused(caught.value)


def code_of(error: object) -> grpc.StatusCode:
    """The status that a call ended with, of the error that it raised."""
    assert isinstance(error, grpc.Call)
    return error.code()


def refused(error: object) -> Refused:
    """How the call that raised this error was refused."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        assert any(detail.Unpack(message) for message in (info, request, retry))
    if status:
        assert info.domain == "livekit-auth"
    fields = tuple(violation.field for violation in request.field_violations)
    wait = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    return Refused(code_of(error).name, info.reason, error.details() or "", dict(info.metadata), fields, wait)
