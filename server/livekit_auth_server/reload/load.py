"""What the settings name, loaded: at the start, by `livekit-auth-server check`, and again while the server runs.

Six kinds, each reloaded by itself: policy, keys, bundles (of CAs), revocations (the deny-list), crls and certificate
(the server's own); and shadow, a candidate policy, if there is one. The settings file isn't read again.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.core.identity import Identifier
from livekit_auth_server.core.keys import ApiKey, KeySet, Project
from livekit_auth_server.core.revocation import DenyList
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private
from livekit_auth_server.files.watch import fingerprint
from livekit_auth_server.keys.keys_file import keys_from_directory, keys_from_environment, keys_from_file
from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.reload.reloader import Part
from livekit_auth_server.service.calls import State
from livekit_auth_server.service.shadow import Shadow
from livekit_auth_server.transport.tls import Endpoint, ServerIdentity, expiry
from livekit_auth_server.trust.bundles import load_bundles
from livekit_auth_server.trust.crls import load_crls, reload_crls
from livekit_auth_server.trust.deny_list import load_deny_file
from livekit_auth_server.trust.doubts import of_bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from livekit_auth_server.config.settings import KeysSettings, Settings
    from livekit_auth_server.core.identity import TrustBundles
    from livekit_auth_server.core.policy import Policy
    from livekit_auth_server.files.watch import Fingerprint
    from livekit_auth_server.service.ports import Clock
    from livekit_auth_server.service.shadow import ShadowObserver
    from livekit_auth_server.trust.workload_api import WorkloadSource

    Apply = Callable[[], Mapping[str, object]]

_log = structlog.get_logger("livekit_auth_server")


def load_keys(settings: Settings) -> KeySet:
    """Every project's keys. Raises ConfigError."""
    projects = [
        Project(name, project.url, _keys(settings, name, project.keys)) for name, project in settings.projects.items()
    ]
    try:
        return KeySet(projects)
    except ValueError as error:
        raise ConfigError("projects", str(error)) from None


def _keys(settings: Settings, project: str, source: KeysSettings) -> tuple[ApiKey, ...]:
    """A source that isn't there is named by its setting: its value may be a key in the wrong place."""
    for kind, path in (("file", source.file), ("directory", source.directory)):
        if path is not None and not os.path.exists(settings.at(path)):  # noqa: PTH110 - raises nothing
            raise ConfigError(f"projects.{project}.keys.{kind}", f"there is no such {kind}; check the path")
    if source.file is not None:
        return keys_from_file(settings.at(source.file))
    if source.directory is not None:
        return keys_from_directory(settings.at(source.directory))
    return keys_from_environment(source.environment or "")


def load_identifier(settings: Settings, source: WorkloadSource | None = None) -> Identifier:
    """An identifier for the CA bundles, which remembers nothing that other bundles vouched for. Raises ConfigError."""
    identity = settings.identity
    domains = {name: settings.at(path) for name, path in identity.trust_domains.items()}
    bundles = load_bundles(domains, settings.at(identity.dns_bundle) if identity.dns_bundle else None)
    if source is not None:
        bundles = replace(bundles, domains={**bundles.domains, **source.bundles()})
    return Identifier(bundles)


def load_deny_list(settings: Settings, policy: Policy, bundles: TrustBundles) -> DenyList:
    """The deny-list, empty where the settings name none. Raises ConfigError."""
    path = settings.identity.deny_list
    return load_deny_file(settings.at(path), policy.callers, bundles.union) if path else DenyList()


def _crls(settings: Settings) -> list[Path]:
    return [settings.at(path) for path in settings.identity.crls]


def load_state(settings: Settings, source: WorkloadSource | None = None) -> State:
    """Policy, keys, CA bundles and revocations as the settings name them. Raises ConfigError."""
    identifier = load_identifier(settings, source)
    policy = load_policy(settings.at(settings.policy), frozenset(settings.projects))
    listed = load_deny_list(settings, policy, identifier.bundles)
    denied = listed.with_crls(load_crls(_crls(settings), identifier.bundles.union))
    return State(policy, load_keys(settings), identifier, denied)


def load_server_identity(settings: Settings, source: WorkloadSource | None = None) -> ServerIdentity:
    """The server's own certificate and key, checked. Raises ConfigError."""
    tls = settings.tls
    if tls.certificate and tls.key:
        certificate, key = settings.at(tls.certificate), settings.at(tls.key)
        where, pair = f"{certificate} and {key}", (read_bytes(certificate), read_private(key))
    elif source is not None:
        svid = source.svid()
        where, pair = f"the SVID {svid.spiffe_id}", (svid.certificate, svid.key)
    else:
        raise ConfigError("tls", "names no certificate")
    identity = ServerIdentity(*pair)
    try:
        identity.check()
    except ValueError as error:
        raise ConfigError(where, str(error)) from None
    if (ended := expiry(identity)).timestamp() <= time.time():
        raise ConfigError(where, f"the certificate expired at {ended:%Y-%m-%dT%H:%M:%SZ}: no client takes it; renew it")
    return identity


def files(settings: Settings) -> dict[str, tuple[Path, ...]]:
    """The files, and folders of keys, that each kind is made of."""
    identity = settings.identity
    keys = [source.keys.file or source.keys.directory for source in settings.projects.values()]
    named: dict[str, list[Path | None]] = {
        "policy": [settings.policy],
        "keys": keys,
        "bundles": [*identity.trust_domains.values(), identity.dns_bundle],
        "revocations": [identity.deny_list],
        "crls": [*identity.crls],
        "certificate": [settings.tls.certificate, settings.tls.key],
        **({"shadow": [settings.shadow_policy]} if settings.shadow_policy else {}),
    }
    return {kind: tuple(settings.at(path) for path in paths if path) for kind, paths in named.items()}


def fingerprints(settings: Settings) -> dict[str, Fingerprint]:
    """What the files of each kind are now. To be taken before they are loaded, so that no change is missed."""
    found = {kind: fingerprint(paths) for kind, paths in files(settings).items()}
    # A candidate policy isn't loaded at the start, which it mustn't hold up: the reloader finds that it has changed.
    return {kind: () if kind == "shadow" else state for kind, state in found.items()}


def parts(
    settings: Settings,
    state: State,
    endpoint: Endpoint,
    clock: Clock,
    source: WorkloadSource | None = None,
) -> list[Part]:
    """What reloads: each kind, loaded from its files or the Workload API and put into `state` or `endpoint`."""

    def policy() -> Apply:
        new = load_policy(settings.at(settings.policy), frozenset(settings.projects))
        return lambda: _put(state, "policy", new, policy_revision=new.revision, callers=len(new.callers))

    def keys() -> Apply:
        new = load_keys(settings)
        return lambda: _put(state, "keys", new, keys=sum(len(project.keys) for project in new.projects.values()))

    def bundles() -> Apply:
        new = load_identifier(settings, source)

        def apply() -> Mapping[str, object]:
            if new.bundles.union:  # TLS must never be left without CAs; without any, identity.py refuses everybody
                endpoint.replace(roots=new.bundles.union)
            warn(of_bundles(new.bundles, clock.now()))
            return _put(state, "identifier", new, authorities=len(new.bundles.union))

        return apply

    def certificate() -> Apply:
        new = load_server_identity(settings, source)

        def apply() -> Mapping[str, object]:
            endpoint.replace(server=new)
            return {"not_after": expiry(new).isoformat()}

        return apply

    named = files(settings)
    loaders = {
        **_revoking(settings, state, clock),
        "policy": policy,
        "keys": keys,
        "bundles": bundles,
        "certificate": certificate,
    }
    depends: dict[str, Callable[[], object]] = {"crls": lambda: state.identifier.bundles}
    if source is not None:
        sent = _sent(settings, source)
        depends |= sent
        loaders |= {kind: _checking(loaders[kind], source) for kind in sent}
    return [Part(kind, named[kind], load, depends.get(kind, lambda: None)) for kind, load in loaders.items()]


def _revoking(settings: Settings, state: State, clock: Clock) -> dict[str, Callable[[], Apply]]:
    """Deny-list and CRLs, by themselves: what is wrong with one mustn't keep the other from taking effect."""

    def revocations() -> Apply:
        new = load_deny_list(settings, state.policy, state.identifier.bundles)
        return lambda: _put_listed(state, new)

    def crls() -> Apply:
        new, problems = reload_crls(_crls(settings), state.identifier.bundles.union, state.denied)
        return lambda: _put_crls(state, new, problems, clock.now())

    return {"revocations": revocations, "crls": crls}


def _sent(settings: Settings, source: WorkloadSource) -> dict[str, Callable[[], object]]:
    """The kinds that come from the Workload API, and what tells that something else was sent."""
    kinds: dict[str, Callable[[], object]] = {}
    if settings.identity.workload_api:
        kinds["bundles"] = source.bundles_state
    if settings.tls.workload_api:
        kinds["certificate"] = source.svid_state
    return kinds


def _checking(load: Callable[[], Apply], source: WorkloadSource) -> Callable[[], Apply]:
    """`load`, with a report of the agent after it, so that a change of files doesn't wait for an agent that is away."""

    def loaded() -> Apply:
        apply = load()

        def checked() -> Mapping[str, object]:
            facts = apply()
            source.report()
            return facts

        return checked

    return loaded


def candidate(settings: Settings, path: Path, state: State, observer: ShadowObserver) -> Part:
    """The candidate policy of the shadow mode, whose differences the observer hears of."""

    def load() -> Apply:
        new = load_policy(settings.at(path), frozenset(settings.projects))
        shadow = Shadow(new, observer)
        return lambda: _put(state, "shadow", shadow, policy_revision=new.revision, callers=len(new.callers))

    return Part("shadow", files(settings)["shadow"], load)


def _put(state: State, part: str, new: object, **facts: object) -> Mapping[str, object]:
    setattr(state, part, new)
    return facts


def _put_listed(state: State, new: DenyList) -> Mapping[str, object]:
    warn(new.idle)
    state.denied = state.denied.with_list(new)
    return {"workloads": len(new.workloads), "certificates": len(new.certificates)}


def _put_crls(state: State, new: DenyList, problems: Sequence[ConfigError], now: float) -> Mapping[str, object]:
    """Puts in force what could be used. Raises the first of the problems."""
    state.denied = state.denied.with_crls(new)
    warn_of_stale_crls(new, now)
    if problems:
        raise problems[0]
    return {"certificates": len(new.revoked)}


def warn(doubts: Iterable[str]) -> None:
    """Logs each. To be called on the event loop, whose the log's stream is."""
    for doubt in doubts:
        _log.warning("configuration that is probably not meant", doubt=doubt)


def warn_of_stale_crls(denied: DenyList, now: float) -> None:
    """Logs each CRL whose next issue is overdue. It still counts."""
    for crl in denied.stale(now):
        _log.warning("a CRL's next issue is overdue; newer revocations are missing", crl=crl.name)
