"""A token request and its protobuf message."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any, get_args

import pytest

from livekit_auth import AuthClient, TokenRequest, sync
from livekit_auth._messages.requests import Kind, encode
from livekit_auth.v1.auth_service_pb2 import IssueTokenRequest
from livekit_auth.v1.grants_pb2 import Grants, ParticipantKind


def test_empty_request_is_an_empty_message():
    assert encode(TokenRequest()) == IssueTokenRequest()


def test_request_has_the_contracts_fields():
    assert set(TokenRequest.__dataclass_fields__) == set(IssueTokenRequest.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("client", [AuthClient, sync.AuthClient])
def test_issue_token_takes_the_fields_of_a_request(client):
    arguments = set(client.issue_token.__kwdefaults__)
    assert arguments == {*TokenRequest.__dataclass_fields__, "timeout"}


def test_role_and_grants_together_are_refused():
    with pytest.raises(ValueError, match="not both"):
        TokenRequest(role="guest", grants=Grants())


def test_empty_grants_are_sent_as_grants():
    assert encode(TokenRequest(grants=Grants())).WhichOneof("access") == "grants"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_has_its_value_in_the_contract(kind):
    value: Any = ParticipantKind.Value(f"PARTICIPANT_KIND_{kind.upper()}")
    assert encode(TokenRequest(kind=kind)).kind == value
    assert encode(TokenRequest(kind=value)).kind == value


def test_kinds_are_those_of_the_contract():
    assert len(get_args(Kind)) == len(ParticipantKind.keys()) - 1


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="standard, egress, ingress, sip, agent, connector, bridge, not 'robot'"):
        TokenRequest(kind="robot")  # type: ignore[arg-type]


def test_ttl_is_sent_unchecked():
    ttl = encode(TokenRequest(ttl=timedelta(seconds=1.5))).ttl
    assert (ttl.seconds, ttl.nanos) == (1, 500_000_000)
    assert encode(TokenRequest(ttl=timedelta(0))).HasField("ttl")


def test_request_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TokenRequest().room = "other"  # type: ignore[misc]
