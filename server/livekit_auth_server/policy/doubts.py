"""Parts of a policy that load and are probably mistakes. Each doubt is one line that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.files.document import Document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livekit_auth_server.core.identity import TrustBundles
    from livekit_auth_server.core.policy import Matcher, Policy

_SHOWN = 16  # a line takes up to 0.1 s to find in JSON of 10,000 callers, and more warnings say nothing new


def of_policy(policy: Policy, file: Path, bundles: TrustBundles | None = None) -> Iterator[str]:
    """Matchers that look like patterns, callers that no bundle can vouch for, and callers without a default project.

    `file` is what the policy was loaded from: it is read again if a doubt needs its line. Raises ConfigError.
    """
    for caller in policy.callers.values():
        if bundles is not None and bundles.for_identity(WorkloadId.parse(caller.id)) is None:
            where = "identity.dns_bundle" if caller.id.startswith("dns:") else "identity.trust_domains"
            yield f"policy: {caller.id} can never call: {where} has no bundle for it"
        for entry in caller.entries:
            for field, matcher in (("rooms", entry.rooms), ("identities", entry.identities)):
                for text in _starred(matcher):
                    place = f"{caller.id}, {entry.name}, {field}"
                    yield f'policy: {place}: the * in "{text}" stands for itself; write {{prefix: …}} without it'
    yield from _without_default(policy, file)


def _without_default(policy: Policy, file: Path) -> Iterator[str]:
    """Callers with several projects of which none is the default, each once."""
    found = [
        (index, caller)
        for index, caller in enumerate(policy.callers.values())  # as the file lists them
        if len(caller.projects) > 1 and not caller.default_project
    ]
    if not found:
        return
    document = Document.read(file)
    for index, caller in found[:_SHOWN]:
        yield (
            f"policy line {document.line(('callers', index))}: {caller.id} has several projects and no "
            "default_project: a request without a project gets PROJECT_REQUIRED; set default_project to one of them"
        )
    if len(found) > _SHOWN:
        yield f"policy: {len(found) - _SHOWN} more callers have several projects and no default_project"


def _starred(matcher: Matcher) -> list[str]:
    return [text for text in (*matcher.prefixes, *sorted(matcher.exact)) if text.endswith("*")]
