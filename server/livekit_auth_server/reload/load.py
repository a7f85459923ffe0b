"""What the settings name, loaded: at the start, by `livekit-auth-server check`, and again by reload.parts.

Six kinds, each reloaded by itself: policy, keys, bundles (of CAs), revocations (the deny-list), crls and certificate
(the server's own); and shadow, a candidate policy, if there is one. The settings file isn't read again.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from livekit_auth_server.core.identity import Identifier
from livekit_auth_server.core.keys import ApiKey, KeySet, Project
from livekit_auth_server.core.revocation import DenyList
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.read import read_bytes, read_private
from livekit_auth_server.files.watch import fingerprint
from livekit_auth_server.keys.keys_file import keys_from_directory, keys_from_environment, keys_from_file
from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.service.state import State
from livekit_auth_server.transport.tls import ServerIdentity, expiry
from livekit_auth_server.trust.bundles import load_bundles
from livekit_auth_server.trust.crls import load_crls
from livekit_auth_server.trust.deny_list import load_deny_file

if TYPE_CHECKING:
    from pathlib import Path

    from livekit_auth_server.config.sections import KeysSettings
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.core.identity import TrustBundles
    from livekit_auth_server.core.policy import Policy
    from livekit_auth_server.files.watch import Fingerprint
    from livekit_auth_server.trust.workload_api import WorkloadSource


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
    """An error about a missing source names the setting only: its value may be a key in the wrong place."""
    for kind, path in (("file", source.file), ("directory", source.directory)):
        if path is not None and not os.path.exists(settings.at(path)):  # noqa: PTH110 - raises nothing
            raise ConfigError(f"projects.{project}.keys.{kind}", f"there is no such {kind}; check the path")
    if source.file is not None:
        return keys_from_file(settings.at(source.file))
    if source.directory is not None:
        return keys_from_directory(settings.at(source.directory))
    return keys_from_environment(source.environment or "")


def load_identifier(settings: Settings, source: WorkloadSource | None = None) -> Identifier:
    """A new identifier for the CA bundles, which has verified nothing yet. Raises ConfigError."""
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


def crl_places(settings: Settings) -> list[Path]:
    """The files and folders of CRLs."""
    return [settings.at(path) for path in settings.identity.crls]


def load_state(settings: Settings, source: WorkloadSource | None = None) -> State:
    """Policy, keys, CA bundles and revocations as the settings name them. Raises ConfigError."""
    identifier = load_identifier(settings, source)
    policy = load_policy(settings.at(settings.policy), frozenset(settings.projects))
    listed = load_deny_list(settings, policy, identifier.bundles)
    denied = listed.with_crls(load_crls(crl_places(settings), identifier.bundles.union))
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
    """The files, and folders of keys, of each kind."""
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
    """The fingerprint of each kind's files. Take it before loading them, so that no change is missed."""
    found = {kind: fingerprint(paths) for kind, paths in files(settings).items()}
    # The start doesn't wait for a candidate policy: the reloader finds it changed, and loads it.
    return {kind: () if kind == "shadow" else state for kind, state in found.items()}
