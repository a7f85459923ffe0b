"""In which project a request counts against rate limits."""

from __future__ import annotations

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy
from livekit_auth_server.service import costs
from livekit_auth_server.service.batches import Batch

ONE, TWO = frozenset({"alpha"}), frozenset({"alpha", "beta"})


def caller(projects: frozenset[str], default: str = "") -> CallerPolicy:
    return CallerPolicy(
        "dns:a", (AllowEntry("all", projects),), projects, projects, read_decisions=projects, default_project=default
    )


@pytest.mark.parametrize(
    ("project", "policy", "counted"),
    [
        ("alpha", caller(TWO), "alpha"),
        ("", caller(TWO), None),
        ("", caller(ONE), "alpha"),
        ("", caller(frozenset()), None),
        ("gamma", caller(TWO), None),
        ("gamma", caller(ONE), None),
        ("", caller(TWO, "beta"), "beta"),
        ("alpha", caller(TWO, "beta"), "alpha"),
        ("gamma", caller(TWO, "beta"), None),
    ],
)
def test_a_token_counts_in_its_project_and_one_without_a_permitted_project_in_all(
    project: str, policy: CallerPolicy, counted: str | None
) -> None:
    assert costs.of_request(pb.IssueTokenRequest(project=project), policy, "projects") == {counted: 1}


def test_a_batch_counts_each_entry_in_its_project() -> None:
    batch = Batch(4, (b"",) * 4, ("", "alpha", "gamma", ""))
    assert costs.of_batch(batch, caller(TWO, "beta"), "projects") == {"beta": 2, "alpha": 1, None: 1}


def test_the_default_project_is_not_that_of_a_verification() -> None:
    assert costs.of_request(pb.VerifyWebhookRequest(), caller(TWO, "beta"), "verify_webhooks") == {None: 1}
    assert costs.of_any_project(pb.VerifyTokenRequest(), caller(TWO, "beta"), "verify_tokens") == {None: 1}
    assert costs.of_any_project(pb.VerifyTokenRequest(), caller(ONE), "verify_tokens") == {"alpha": 1}


def test_an_acknowledgement_in_a_foreign_project_counts_against_every_limit() -> None:
    assert costs.of_request(pb.AckWebhookRequest(project="gamma"), caller(TWO), "verify_webhooks") == {None: 1}
    assert costs.of_request(pb.AckWebhookRequest(project="beta"), caller(TWO), "verify_webhooks") == {"beta": 1}
