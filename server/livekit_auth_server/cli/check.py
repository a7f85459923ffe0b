"""`livekit-auth-server check`: loads what a server would run on, so that files can be tried before they are used.

What `serve` refuses is a ConfigError here too. What it would accept and is probably a mistake is a warning. Nothing is
changed: no file is created, no key is written to Redis, and a port is held only for a moment.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy.doubts import of_policy
from livekit_auth_server.policy.policy_file import load_policy
from livekit_auth_server.reload.load import load_server_identity, load_state
from livekit_auth_server.selfcheck.process import run
from livekit_auth_server.selfcheck.report import Report
from livekit_auth_server.selfcheck.task import Task
from livekit_auth_server.selfcheck.verdict import Verdict, described
from livekit_auth_server.stores.open import probe_redis
from livekit_auth_server.supervisor.port import hold
from livekit_auth_server.telemetry.open import read_collector
from livekit_auth_server.transport.tls import expiry
from livekit_auth_server.trust.doubts import of_bundles
from livekit_auth_server.trust.workload_api import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.core.keys import Project
    from livekit_auth_server.service.state import State


def summary(settings: Settings) -> dict[str, Any]:
    """What a server with these settings would run on, and `warnings`. Raises ConfigError as `serve` does."""
    with opened(settings) as source:
        state, server = load_state(settings, source), load_server_identity(settings, source)
    for setting, collector in (("tracing", settings.tracing), ("audit.otlp", settings.audit.otlp)):
        if collector is not None:
            read_collector(settings, setting, collector)
    _check_audit(settings)
    selfcheck = _selfcheck(settings, state)
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
        "denied_certificates": len(state.denied.certificates) + len(state.denied.revoked),
        "crls": [{"crl": crl.name, "stale": crl.stale(now)} for crl in state.denied.crls],
        "selfcheck": selfcheck,
        "warnings": [*_warnings(settings, state, now), *selfcheck.pop("warnings")],
    }


def _warnings(settings: Settings, state: State, now: float) -> Iterator[str]:
    yield from of_bundles(state.identifier.bundles, now)
    yield from of_policy(state.policy, settings.at(settings.policy), state.identifier.bundles)
    yield from state.denied.idle
    for project in state.keys.projects.values():
        if not any(key.may_sign(int(now)) for key in project.keys):
            yield f"project {project.name}: none of its keys can sign now, so no token can be issued"
    for crl in state.denied.stale(now):
        yield f"CRL {crl.name}: its next issue is overdue; newer revocations are missing"
    if problem := asyncio.run(probe_redis(settings)):
        yield f"redis: {settings.redis.url if settings.redis else ''} can't be used now: {problem}"
    for name, address in (("listen", settings.listen), ("metrics", settings.metrics)):
        if address is not None and (problem := _unbound(address)):
            yield f"{name}: {problem}; fine if that is the server that runs here"


def _selfcheck(settings: Settings, state: State) -> dict[str, Any]:
    """How the comparison with livekit-api ends, and `warnings`. Raises ConfigError if `serve` would issue nothing."""
    if settings.selfcheck == "off":
        return {"status": "off", "warnings": []}
    task, verdict = Task.of(state.policy, state.keys), Verdict(settings.selfcheck)
    verdict.record(asyncio.run(run(task.encode())), task)
    if problems := verdict.problems():
        raise ConfigError("selfcheck", problems[0].removeprefix("selfcheck: "))
    found = verdict.found or Report(0, 0)
    compared = {"tokens": found.tokens, "keys": found.keys, "differences": described(found, task)}
    return {"status": verdict.status, **compared, "warnings": verdict.warnings()}


def _unbound(address: str) -> str:
    """Why no server can listen on the address now; empty when one can."""
    try:
        hold(address, patience=0).close()
    except ConfigError as error:
        return error.message
    return ""


def _check_audit(settings: Settings) -> None:
    """Raises ConfigError when the trail's files couldn't be created or written."""
    if settings.audit.path is None:
        return
    folder = settings.at(settings.audit.path)
    numbers = settings.workers + (settings.workers > 1)  # a rolling restart has one more
    files = [folder / f"audit.{worker}.jsonl" for worker in range(numbers)]
    there = [path for path in files if os.path.lexists(path)]
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ConfigError(files[0], f"the audit trail can't be kept here: {nearest} isn't a folder")
    for path, access in [*((path, os.R_OK | os.W_OK) for path in there), (nearest, os.W_OK | os.X_OK)]:
        if not os.access(path, access):
            raise ConfigError(files[0], f"the audit trail can't be kept here: {path} can't be written")
    for path in there:
        if not path.is_file() or path.is_symlink():
            raise ConfigError(path, "the audit trail can't be kept here: it isn't a plain file")


def _candidate(settings: Settings) -> str | None:
    """The candidate policy's revision. Raises ConfigError, where `serve` would log an error and run without it."""
    if settings.shadow_policy is None:
        return None
    return load_policy(settings.at(settings.shadow_policy), frozenset(settings.projects)).revision


def _project(project: Project, now: int) -> dict[str, int]:
    return {
        "sign": sum(key.may_sign(now) for key in project.keys),
        "verify": sum(key.may_verify(now) for key in project.keys),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The summary as text, without the warnings."""
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
    checked = found["selfcheck"]
    if checked["status"] == "passed":
        yield f"selfcheck: {checked['tokens']} tokens and {checked['keys']} keys agree with livekit-api"
    elif checked["status"] == "different":
        yield from (f"differs from livekit-api: {text}" for text in checked["differences"])
    for crl in found["crls"]:
        yield f"CRL {crl['crl']}{': its next issue is overdue' if crl['stale'] else ''}"
