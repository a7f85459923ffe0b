"""What Prometheus is told of certificates, keys and the policy: times, and always of what is in force now."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from prometheus_client import CollectorRegistry

from livekit_auth_server.core.identity import TrustBundles
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.core.policy import Policy
from livekit_auth_server.service.state import InForce, State
from livekit_auth_server.telemetry.config_metrics import StateMetrics, signs_until
from support.fakes import NOW, FakeClock, FakeIdentifier
from support.pki import NOW as TODAY
from support.pki import Authority
from support.policies import policy_of

SECRET = Secret(b"MARKER" * 8)
END = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


def key(name: str, start: int | None, end: int | None, state: KeyState = KeyState.ACTIVE) -> ApiKey:
    return ApiKey(name, SECRET, state, start, end)


@pytest.mark.parametrize(
    ("keys", "until"),
    [
        ([key("a", None, None)], math.inf),
        ([key("a", None, NOW + 60)], NOW + 60),
        ([key("a", None, NOW + 60), key("b", None, None)], math.inf),
        ([key("a", None, NOW + 60), key("b", NOW + 50, NOW + 90)], NOW + 90),
        ([key("b", NOW + 50, NOW + 90), key("a", None, NOW + 60)], NOW + 90),
        ([key("a", None, NOW + 60), key("b", NOW + 61, None)], NOW + 60),  # a gap of a second
        ([key("a", None, NOW + 60), key("b", None, None, KeyState.VERIFY_ONLY)], NOW + 60),
        ([key("a", None, None, KeyState.REVOKED)], 0),
        ([key("a", None, NOW)], 0),
        ([key("a", NOW + 60, None)], 0),
        ([], 0),
    ],
)
def test_a_project_signs_until_its_last_key_in_a_row_ends(keys: list[ApiKey], until: float) -> None:
    assert signs_until(Project("alpha", "wss://x", tuple(keys)), NOW) == until


def in_force_of(keys: list[ApiKey], bundles: TrustBundles) -> InForce:
    policy, _ = policy_of()
    keys_of_alpha = KeySet([Project("alpha", "wss://x", tuple(keys))])
    return InForce(State(policy, keys_of_alpha, FakeIdentifier(bundles=bundles)))


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"livekit_auth_{name}", labels)


def test_ends_are_times_and_of_a_bundle_the_first_counts() -> None:
    soon, later = TODAY + dt.timedelta(days=3), TODAY + dt.timedelta(days=30)
    bundle = tuple(Authority.create(not_after=end).certificate for end in (later, soon))
    registry = CollectorRegistry()
    in_force = in_force_of([key("a", None, NOW + 60)], TrustBundles({"example.org": bundle}, bundle[:1]))
    StateMetrics(registry, in_force, lambda: END, FakeClock(), "1.2.3")
    assert value(registry, "server_certificate_expiry_timestamp_seconds") == END.timestamp()
    assert value(registry, "ca_expiry_timestamp_seconds", bundle="example.org") == soon.timestamp()
    assert value(registry, "ca_expiry_timestamp_seconds", bundle="DNS names") == later.timestamp()
    assert value(registry, "signing_key_expiry_timestamp_seconds", project="alpha") == NOW + 60
    assert value(registry, "build_info", version="1.2.3") == 1
    assert value(registry, "policy_info", revision=in_force.state.policy.revision) == 1
    assert value(registry, "policy_callers") == 1


def test_what_was_reloaded_is_shown_at_once_and_the_old_policy_is_gone() -> None:
    registry, in_force = CollectorRegistry(), in_force_of([key("a", None, None)], TrustBundles({}))
    StateMetrics(registry, in_force, lambda: END, FakeClock(), "1.2.3")
    assert value(registry, "signing_key_expiry_timestamp_seconds", project="alpha") == math.inf
    old = in_force.state.policy.revision
    in_force.replace_keys(KeySet([Project("alpha", "wss://x", ())]))
    in_force.replace_policy(Policy("new", {}, {}))
    assert value(registry, "signing_key_expiry_timestamp_seconds", project="alpha") == 0
    assert (value(registry, "policy_info", revision="new"), value(registry, "policy_info", revision=old)) == (1, None)
    assert "MARKER" not in repr(list(registry.collect()))
