"""Each RPC is declared once, and what else names methods comes from there."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.policy import CallerPolicy, Permission
from livekit_auth_server.service import costs
from livekit_auth_server.service.handlers import handlers
from livekit_auth_server.service.methods import (
    BATCH_ISSUE_TOKENS,
    COUNTED_AS,
    ISSUE_TOKEN,
    LIMITED,
    METHODS,
    SERVICE,
    WITHOUT_PROJECT,
)
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.service.webhooks import Webhooks
from support.fakes import AuditTrail, FakeAckStore, FakeClock
from support.handlers import issuer

BY_NAME = {method.name: method for method in METHODS}


def test_every_rpc_has_exactly_one_method_with_its_messages():
    service = pb.DESCRIPTOR.services_by_name["AuthService"]
    assert service.full_name == SERVICE == "livekit_auth.v1.AuthService"
    assert [(method.name, method.request.DESCRIPTOR, method.response.DESCRIPTOR) for method in METHODS] == [
        (rpc.name, rpc.input_type, rpc.output_type) for rpc in sorted(service.methods, key=_place)
    ]


def _place(rpc):
    """The order of METHODS; a name that isn't there goes last, and fails the comparison."""
    return list(BY_NAME).index(rpc.name) if rpc.name in BY_NAME else len(BY_NAME)


def test_every_method_has_a_handler():
    served = handlers(issuer(AuditTrail()), Webhooks(FakeAckStore(), 1), Turns(FakeClock()))
    assert tuple(one.method for one in served) == METHODS


def test_identity_and_server_info_are_open_to_callers_that_the_policy_doesnt_list():
    assert [method.name for method in METHODS if method.open_to_all] == ["GetCaller", "GetServerInfo"]


def test_what_issues_tokens_is_audited():
    assert [method.name for method in METHODS if method.audited] == ["IssueToken", "BatchIssueTokens"]


def test_only_batches_queue_undecoded():
    assert [method.name for method in METHODS if method.queued] == ["BatchIssueTokens"]


def test_only_the_response_of_issue_token_names_its_decision():
    assert [method.name for method in METHODS if method.names_decision] == ["IssueToken"]


def test_a_limit_can_name_every_method_that_counts_as_itself():
    assert COUNTED_AS == {"BatchIssueTokens": "IssueToken"}
    assert [name for name in BY_NAME if name not in LIMITED] == list(COUNTED_AS)
    assert set(COUNTED_AS.values()) <= set(LIMITED)
    assert {
        "GetCaller",
        "ListPermissions",
        "ListProjects",
        "GetDecision",
        "GetServerInfo",
    } == WITHOUT_PROJECT


def test_a_method_without_a_permission_has_no_project_to_count_in():
    assert all((method.cost is costs.of_no_project) is (method.permission is None) for method in METHODS)


def test_every_field_of_a_caller_that_holds_projects_is_a_permission():
    projects = {field.name for field in fields(CallerPolicy) if field.type == "frozenset[str]"}
    assert projects == set(get_args(Permission))
    # GetDecision checks read_decisions itself: a caller may always read its own decisions.
    assert {method.permission for method in METHODS} - {None} == projects - {"read_decisions"}


NO_HANDLER: Any = None


def test_a_handler_of_another_kind_than_declared_is_refused_at_once():
    with pytest.raises(TypeError, match="IssueToken is declared with queued=False"):
        ISSUE_TOKEN.queued_for(NO_HANDLER)
    with pytest.raises(TypeError, match="BatchIssueTokens is declared with queued=True"):
        BATCH_ISSUE_TOKENS.served_by(NO_HANDLER)
