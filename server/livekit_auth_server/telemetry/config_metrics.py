"""Prometheus metrics of what is in force: when certificates and keys end, and which policy it is.

They are computed at each scrape, so that calls and reloads pay nothing. Ends are times ("…_timestamp_seconds", seconds
since the epoch), as Prometheus' conventions ask, not seconds left: a series then changes only when its subject does,
and `… - time()` is right at any moment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from livekit_auth_server.core.keys import KeyState

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping

    from cryptography import x509
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from livekit_auth_server.core.identity import TrustBundles
    from livekit_auth_server.core.keys import Project
    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.service.state import InForce

DNS_BUNDLE = "DNS names"  # no trust domain looks like this


class StateMetrics(Collector):
    """Shows the state, and the end of the server's certificate as `certificate_end` returns it."""

    def __init__(
        self,
        registry: CollectorRegistry,
        in_force: InForce,
        certificate_end: Callable[[], dt.datetime],
        clock: Clock,
        version: str,
    ) -> None:
        self._in_force, self._certificate_end, self._clock, self._version = in_force, certificate_end, clock, version
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        state = self._in_force.state
        yield _gauge(
            "livekit_auth_server_certificate_expiry_timestamp_seconds",
            "When the server's certificate ends, in seconds since the epoch.",
            {(): self._certificate_end().timestamp()},
        )
        yield _gauge(
            "livekit_auth_ca_expiry_timestamp_seconds",
            "When the first CA certificate of a bundle ends, in seconds since the epoch.",
            {(name,): _first_end(bundle) for name, bundle in _bundles(state.identifier.bundles).items() if bundle},
            "bundle",
        )
        yield _gauge(
            "livekit_auth_signing_key_expiry_timestamp_seconds",
            "Until when a project can sign, in seconds since the epoch; +Inf without an end, 0 when it can't now.",
            {(name,): signs_until(p, int(self._clock.now())) for name, p in state.keys.projects.items()},
            "project",
        )
        policy = state.policy
        yield _gauge("livekit_auth_policy_info", "The policy in force.", {(policy.revision,): 1}, "revision")
        yield _gauge("livekit_auth_policy_callers", "Callers that the policy lists.", {(): len(policy.callers)})
        yield _gauge("livekit_auth_build_info", "The server's version.", {(self._version,): 1}, "version")


def signs_until(project: Project, now: int) -> float:
    """Until when the project's active keys, one after the other, can sign without a gap; 0 when none can now."""
    keys = [key for key in project.keys if key.state is KeyState.ACTIVE]
    end: float = now
    while later := [
        key.not_after or math.inf
        for key in keys
        if (key.not_before or 0) <= end and (key.not_after is None or key.not_after > end)
    ]:
        end = max(later)
        if end == math.inf:
            break
    return 0.0 if end == now else end


def _bundles(bundles: TrustBundles) -> Mapping[str, tuple[x509.Certificate, ...]]:
    return {**bundles.domains, DNS_BUNDLE: bundles.dns or ()}


def _first_end(bundle: tuple[x509.Certificate, ...]) -> float:
    return min(certificate.not_valid_after_utc.timestamp() for certificate in bundle)


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
