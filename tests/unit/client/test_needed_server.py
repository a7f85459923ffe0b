"""Which server a client needs: what an older one lacks, and what the error says about it."""

from typing import Any

import pytest

from livekit_auth import ServerTooOld
from livekit_auth._connection.retry import is_transient
from livekit_auth._messages.needed_server import RELEASE, REVISION
from livekit_auth._messages.server_info import required, server_info
from livekit_auth._messages.status import to_error
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.room_config_pb2 import RoomConfig
from support.fake_auth_server import refusal

NEEDS = f"this client needs a server of {RELEASE} or later"
REASON = pb.IssueTokenRequest.REQUEST_REASON_FIELD_NUMBER
SIZE = RoomConfig.MAX_PARTICIPANTS_FIELD_NUMBER


def unknown(path, number, request=pb.IssueTokenRequest):
    metadata = {"field_path": path, "field_number": str(number), "server_version": "0.1.9"}
    return to_error(refusal("INVALID_ARGUMENT", "FIELD_UNKNOWN", metadata=metadata), request)


def test_the_needed_release_is_that_of_the_newest_revision():
    assert pb.ContractRevision.Value(f"CONTRACT_REVISION_{RELEASE.replace('.', '_')}") == REVISION
    assert max(pb.ContractRevision.values()) == REVISION


@pytest.mark.parametrize(
    ("path", "number", "request_type", "said"),
    [
        ("", REASON, pb.IssueTokenRequest, "the field request_reason of IssueTokenRequest"),
        ("room_config", SIZE, pb.IssueTokenRequest, "the field room_config.max_participants of IssueTokenRequest"),
        (
            "requests[3].room_config",
            SIZE,
            pb.BatchIssueTokensRequest,
            "the field requests[3].room_config.max_participants of BatchIssueTokensRequest",
        ),
        ("", 999, pb.IssueTokenRequest, "the field number 999 of IssueTokenRequest"),
        ("room.nonsense", 1, pb.IssueTokenRequest, "the field number 1 in room.nonsense of IssueTokenRequest"),
        ("", 2**70, pb.IssueTokenRequest, f"the field number {2**70} of IssueTokenRequest"),
        ("", -1, pb.IssueTokenRequest, "the field number -1 of IssueTokenRequest"),
        ("..[", "x", pb.IssueTokenRequest, "the field number x in ..[ of IssueTokenRequest"),
    ],
)
def test_unknown_field_is_named_by_the_clients_own_contract(path, number, request_type, said):
    error = unknown(path, number, request_type)
    assert type(error) is ServerTooOld
    assert error.message == f"the server 0.1.9 doesn't know {said}; {NEEDS}"
    assert error.metadata["server_version"] == "0.1.9"


def test_unknown_field_without_metadata_still_says_which_server_is_needed():
    error = to_error(refusal("INVALID_ARGUMENT", "FIELD_UNKNOWN"))
    assert error.message == f"the server doesn't know a field of IssueTokenRequest; {NEEDS}"


def test_missing_method_is_named():
    error = to_error(refusal("UNIMPLEMENTED", message="Method not found!"), pb.GetDecisionRequest)
    assert type(error) is ServerTooOld
    assert error.message == f"the server doesn't have the method GetDecision; {NEEDS} (Method not found!)"


@pytest.mark.parametrize("error", [unknown("", REASON), to_error(refusal("UNIMPLEMENTED"), pb.GetDecisionRequest)])
def test_server_that_is_too_old_is_not_retried(error):
    assert not is_transient(error)


def info(revision: Any):
    return server_info(pb.GetServerInfoResponse(version="0.1.9", contract_revision=revision))


@pytest.mark.parametrize("revision", [REVISION, REVISION + 1, REVISION + 50])
def test_server_of_this_or_a_later_revision_is_accepted(revision):
    assert required(info(revision)) == info(revision)


def test_server_of_an_earlier_revision_is_refused():
    with pytest.raises(ServerTooOld, match=r"the server 0\.1\.9 speaks an older revision of the contract; this client"):
        required(info(REVISION - 1))


def test_server_info_has_the_limits_of_each_method():
    message = pb.GetServerInfoResponse(
        version="0.2.0",
        contract_revision=pb.ContractRevision.Name(REVISION),
        methods=[pb.MethodInfo(name="IssueToken", max_request_bytes=7)],
        max_batch_entries=500,
        max_webhook_body_bytes=8,
        max_response_bytes=9,
    )
    found = server_info(message)
    assert (found.version, found.methods) == ("0.2.0", {"IssueToken": 7})
    assert (found.max_batch_entries, found.max_webhook_body_bytes, found.max_response_bytes) == (500, 8, 9)
