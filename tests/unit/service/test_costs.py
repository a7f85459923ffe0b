"""In which project a request counts against rate limits."""

from __future__ import annotations

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.service import costs

TWO = frozenset({"alpha", "beta"})


@pytest.mark.parametrize(
    ("project", "permitted", "counted"),
    [
        ("alpha", TWO, "alpha"),
        ("", TWO, None),
        ("", frozenset({"alpha"}), "alpha"),
        ("gamma", TWO, None),
        ("gamma", frozenset({"alpha"}), None),
    ],
)
def test_a_project_that_is_not_permitted_counts_against_every_limit(
    project: str, permitted: frozenset[str], counted: str | None
) -> None:
    assert costs.of_request(pb.IssueTokenRequest(project=project), permitted) == {counted: 1}


def test_an_acknowledgement_in_a_foreign_project_counts_against_every_limit() -> None:
    assert costs.of_required_project(pb.AckWebhookRequest(project="gamma"), TWO) == {None: 1}
    assert costs.of_required_project(pb.AckWebhookRequest(project="beta"), TWO) == {"beta": 1}
