"""The service's state, its callers and its handlers, made of fakes."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.service.admission import ListedCaller
from livekit_auth_server.service.batches import Batches
from livekit_auth_server.service.decisions import Decisions
from livekit_auth_server.service.issue import Issuer
from livekit_auth_server.service.method import Undecoded
from livekit_auth_server.service.state import State
from livekit_auth_server.service.turns import Turns
from livekit_auth_server.stores.decisions_in_memory import MemoryDecisions
from support.fakes import IDENTIFIED, NOW, AuditTrail, FakeClock, FakeIdentifier
from support.policies import EVERYTHING, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livekit_auth.v1 import auth_service_pb2 as pb
    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.policy import AllowEntry

SECRET = "a secret of enough bytes that only these tests know"
KEY = ApiKey("APIfirst", Secret(SECRET.encode()))
URL = "wss://livekit.example.org"


def key(name: str, state: KeyState = KeyState.ACTIVE) -> ApiKey:
    return ApiKey(name, Secret(SECRET.encode()), state)


def keys_of(*keys: ApiKey, project: str = "default") -> KeySet:
    return KeySet([Project(project, URL, keys)])


def state_of(*entries: AllowEntry, roles: Mapping[str, Grants] | None = None, keys: KeySet | None = None) -> State:
    """A state whose policy lists one caller; without entries it lists nobody else and permits that one nothing."""
    policy, _ = policy_of(*entries, roles=roles)
    return State(policy, keys or keys_of(KEY), FakeIdentifier())


def listed(*entries: AllowEntry, roles: Mapping[str, Grants] | None = None, keys: KeySet | None = None) -> ListedCaller:
    """The caller as a handler gets it. Without entries it may do everything."""
    policy, caller = policy_of(*(entries or (EVERYTHING,)), roles=roles)
    return ListedCaller(IDENTIFIED, caller, policy, keys or keys_of(KEY), NOW, "", None, 0, lambda caller: caller)


def issuer(audit: AuditTrail) -> Issuer:
    """An issuer whose decisions are called d1, d2 and so on."""
    numbers = count(1)
    return Issuer(audit, Decisions(MemoryDecisions(FakeClock())), lambda: f"d{next(numbers)}")


async def free(_caller: object, _request: object) -> None:
    """Charges nothing."""


async def issue_batch(
    issuer: Issuer, caller: ListedCaller, request: pb.BatchIssueTokensRequest, turns: Turns | None = None
) -> pb.BatchIssueTokensResponse:
    """BatchIssueTokens as its handler answers it, uncharged."""
    batches = Batches(issuer, turns or Turns(FakeClock()))
    return await batches.issue(caller, Undecoded(request.SerializeToString(), free))
