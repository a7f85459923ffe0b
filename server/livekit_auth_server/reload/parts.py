"""What is reloaded: each kind of configuration, how it is loaded, and how it is put in force.

A load runs in a thread. It returns what puts the result in force, which runs on the event loop and returns what to log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.reload.load import (
    crl_places,
    files,
    load_deny_list,
    load_identifier,
    load_keys,
    load_server_identity,
)
from livekit_auth_server.reload.reloader import Part
from livekit_auth_server.service.shadow import Shadow
from livekit_auth_server.transport.tls import expiry
from livekit_auth_server.trust.crls import reload_crls
from livekit_auth_server.trust.doubts import of_bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.core.revocation import DenyList
    from livekit_auth_server.reload.reloader import Apply, Facts
    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.service.shadow import ShadowObserver
    from livekit_auth_server.service.state import InForce
    from livekit_auth_server.transport.tls import Endpoint
    from livekit_auth_server.trust.workload_api import WorkloadSource

_log = structlog.get_logger("livekit_auth_server")


def parts(
    settings: Settings,
    in_force: InForce,
    endpoint: Endpoint,
    clock: Clock,
    source: WorkloadSource | None = None,
) -> list[Part]:
    """Every kind but the candidate policy, from its files or the Workload API, into `in_force` or `endpoint`."""
    kinds = _Kinds(settings, in_force, endpoint, clock, source)
    loads: dict[str, Callable[[], Apply]] = {
        "revocations": kinds.revocations,
        "crls": kinds.crls,
        "policy": kinds.policy,
        "keys": kinds.keys,
        "bundles": kinds.bundles,
        "certificate": kinds.certificate,
    }
    depends: dict[str, Callable[[], object]] = {"crls": lambda: in_force.state.identifier.bundles}
    sent = _sent(settings, source) if source is not None else {}
    paths, depends = files(settings), depends | sent
    found = [Part(kind, paths[kind], load, depends.get(kind, lambda: None)) for kind, load in loads.items()]
    if source is None:
        return found
    # The agent's report comes last, so that a change of files doesn't wait for an unavailable agent.
    return [part.followed_by(source.report) if part.kind in sent else part for part in found]


def candidate(settings: Settings, path: Path, in_force: InForce, observer: ShadowObserver) -> Part:
    """The candidate policy of the shadow mode. The observer is told of its differences."""

    def load() -> Apply:
        policy = load_policy(settings.at(path), frozenset(settings.projects))

        def apply() -> Facts:
            in_force.replace_shadow(Shadow(policy, observer))
            return {"policy_revision": policy.revision, "callers": len(policy.callers)}

        return apply

    return Part("shadow", files(settings)["shadow"], load)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """A method for each kind: loads it, and returns what puts it in force."""

    settings: Settings
    in_force: InForce
    endpoint: Endpoint
    clock: Clock
    source: WorkloadSource | None

    def policy(self) -> Apply:
        policy = load_policy(self.settings.at(self.settings.policy), frozenset(self.settings.projects))

        def apply() -> Facts:
            self.in_force.replace_policy(policy)
            return {"policy_revision": policy.revision, "callers": len(policy.callers)}

        return apply

    def keys(self) -> Apply:
        keys = load_keys(self.settings)

        def apply() -> Facts:
            self.in_force.replace_keys(keys)
            return {"keys": sum(len(project.keys) for project in keys.projects.values())}

        return apply

    def bundles(self) -> Apply:
        identifier = load_identifier(self.settings, self.source)
        bundles = identifier.bundles

        def apply() -> Facts:
            if bundles.union:  # TLS must never be left without CAs; without any, identity.py refuses everybody
                self.endpoint.replace(roots=bundles.union)
            warn(of_bundles(bundles, self.clock.now()))
            self.in_force.replace_identifier(identifier)
            return {"authorities": len(bundles.union)}

        return apply

    def certificate(self) -> Apply:
        identity = load_server_identity(self.settings, self.source)

        def apply() -> Facts:
            self.endpoint.replace(server=identity)
            return {"not_after": expiry(identity).isoformat()}

        return apply

    def revocations(self) -> Apply:
        """The deny-list, apart from the CRLs: an error in one doesn't keep the other from taking effect."""
        state = self.in_force.state
        listed = load_deny_list(self.settings, state.policy, state.identifier.bundles)

        def apply() -> Facts:
            warn(listed.idle)
            self.in_force.replace_deny_list(listed)
            return {"workloads": len(listed.workloads), "certificates": len(listed.certificates)}

        return apply

    def crls(self) -> Apply:
        """Puts in force the CRLs that can be used, then raises the first problem of the others."""
        state = self.in_force.state
        revoked, problems = reload_crls(crl_places(self.settings), state.identifier.bundles.union, state.denied)

        def apply() -> Facts:
            self.in_force.replace_crls(revoked)
            warn_of_stale_crls(revoked, self.clock.now())
            if problems:
                raise problems[0]
            return {"certificates": len(revoked.revoked)}

        return apply


def _sent(settings: Settings, source: WorkloadSource) -> dict[str, Callable[[], object]]:
    """The kinds that come from the Workload API, each with what changes when the agent sends something else."""
    kinds: dict[str, Callable[[], object]] = {}
    if settings.identity.workload_api:
        kinds["bundles"] = source.bundles_state
    if settings.tls.workload_api:
        kinds["certificate"] = source.svid_state
    return kinds


def warn(doubts: Iterable[str]) -> None:
    """Logs each. Call this from the event loop only: the log's stream belongs to it."""
    for doubt in doubts:
        _log.warning("probable configuration mistake", doubt=doubt)


def warn_of_stale_crls(denied: DenyList, now: float) -> None:
    """Logs each CRL whose next issue is overdue. It still counts."""
    for crl in denied.stale(now):
        _log.warning("a CRL's next issue is overdue; newer revocations are missing", crl=crl.name)
