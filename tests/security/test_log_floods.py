"""Nobody fills the log by being refused, and no line crowds out another kind."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.deployment import Deployment

pytestmark = pytest.mark.slow

CALLS = 400  # of each kind


def lines(deployment: Deployment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in deployment.log.splitlines()]


def floods(deployment: Deployment) -> list[Callable[[], object]]:
    """Calls of a listed caller that are refused; of strangers, refused and answered; of peers without an identity."""
    hooks, nobody = deployment.caller("spiffe://example.org/hooks"), deployment.stub(deployment.example_ca.issue())
    strangers = cycle([deployment.caller(f"spiffe://example.org/stranger/{number}") for number in range(4)])
    verify, who = pb.VerifyTokenRequest(token="no.such.token"), pb.GetCallerRequest()
    return [
        lambda: refusal(lambda: hooks.VerifyToken(verify)),
        lambda: refusal(lambda: next(strangers).VerifyToken(verify)),
        lambda: next(strangers).GetCaller(who),
        lambda: refusal(lambda: nobody.GetCaller(who)),
    ]


def repeated(call: Callable[[], object]) -> None:
    for _ in range(CALLS):
        call()


def test_floods_of_refusals_are_counted_and_do_not_fill_the_log(deployment: Deployment) -> None:
    deployment.write("unlisted_limits: []  # so that what bounds the log is the log's own")
    deployment.start()
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(repeated, call) for call in floods(deployment)]
        for one in running:
            one.result()
    seconds = time.monotonic() - started
    assert deployment.stop() == 0
    said = lines(deployment)
    alone, together = Counter[str](), Counter[str]()
    for line in said:
        if line["event"] in ("call", "calls"):
            kind = "nobody" if "peers" in line or not line.get("caller", "x") else "stranger"
            kind = "hooks" if line.get("caller", "").endswith("/hooks") else kind
            alone[kind] += line["event"] == "call"
            together[kind] += line.get("count", 0)
    assert alone + together == {"hooks": CALLS, "stranger": 2 * CALLS, "nobody": CALLS}
    assert max(alone.values()) <= 10 * (seconds + 2)
    assert len([line for line in said if line["event"] == "calls"]) <= 3 * (seconds + 2)
