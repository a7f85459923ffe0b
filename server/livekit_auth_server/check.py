"""`livekit-auth-server check`: what a server would run on, so that files can be tried before they are swapped in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from livekit_auth_server.adapters.policy_file import load_policy
from livekit_auth_server.adapters.workload_api import opened
from livekit_auth_server.loading import expiry, load_server_identity, load_state
from livekit_auth_server.telemetry import read_tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth_server.core.keys import Project
    from livekit_auth_server.settings import Settings


def summary(settings: Settings) -> dict[str, Any]:
    """What the settings lead to. Raises ConfigError as `serve` does."""
    with opened(settings) as source:
        state, server = load_state(settings, source), load_server_identity(settings, source)
    read_tracing(settings)
    now, bundles = time.time(), state.identifier.bundles
    authorities = {name: len(bundle) for name, bundle in bundles.domains.items()}
    return {
        "listen": settings.listen,
        "certificate_not_after": expiry(server).isoformat(),
        "policy_revision": state.policy.revision,
        "callers": len(state.policy.callers),
        "shadow_policy_revision": _candidate(settings),
        "projects": {name: _project(project, int(now)) for name, project in state.keys.projects.items()},
        "authorities": authorities | ({"DNS names": len(bundles.dns)} if bundles.dns else {}),
        "denied_workloads": len(state.denied.workloads),
        "denied_certificates": len(state.denied.certificates),
        "crls": [{"crl": crl.name, "stale": crl.stale(now)} for crl in state.denied.crls],
    }


def _candidate(settings: Settings) -> str | None:
    """The candidate policy's revision. Raises ConfigError, where `serve` goes on without it and says so."""
    if settings.shadow_policy is None:
        return None
    return load_policy(settings.at(settings.shadow_policy), frozenset(settings.projects)).revision


def _project(project: Project, now: int) -> dict[str, int]:
    return {
        "sign": sum(key.may_sign(now) for key in project.keys),
        "verify": sum(key.may_verify(now) for key in project.keys),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The summary as text."""
    yield f"listens on {found['listen']}, certificate valid until {found['certificate_not_after']}"
    yield f"policy {found['policy_revision']}: {found['callers']} callers"
    if found["shadow_policy_revision"]:
        yield f"shadow policy {found['shadow_policy_revision']}: decides nothing"
    for name, keys in found["projects"].items():
        warning = "" if keys["sign"] else "; none can sign now, so no token can be issued"
        yield f"project {name}: {keys['verify']} keys verify{warning}"
    for name, count in found["authorities"].items():
        yield f"{name}: {count} CA certificates"
    yield f"denied: {found['denied_workloads']} workloads, {found['denied_certificates']} certificates"
    for crl in found["crls"]:
        yield f"CRL {crl['crl']}{': its next issue is overdue' if crl['stale'] else ''}"
