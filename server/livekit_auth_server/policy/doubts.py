"""Parts of a policy that load and are probably mistakes. Each doubt is one line that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_auth_server.core.workload_id import WorkloadId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit_auth_server.core.identity import TrustBundles
    from livekit_auth_server.core.policy import Matcher, Policy


def of_policy(policy: Policy, bundles: TrustBundles | None = None) -> Iterator[str]:
    """Matchers that look like patterns, and callers whose identity no bundle can vouch for."""
    for caller in policy.callers.values():
        if bundles is not None and bundles.for_identity(WorkloadId.parse(caller.id)) is None:
            where = "identity.dns_bundle" if caller.id.startswith("dns:") else "identity.trust_domains"
            yield f"policy: {caller.id} can never call: {where} has no bundle for it"
        for entry in caller.entries:
            for field, matcher in (("rooms", entry.rooms), ("identities", entry.identities)):
                for text in _starred(matcher):
                    place = f"{caller.id}, {entry.name}, {field}"
                    yield f'policy: {place}: the * in "{text}" stands for itself; write {{prefix: …}} without it'


def _starred(matcher: Matcher) -> list[str]:
    return [text for text in (*matcher.prefixes, *sorted(matcher.exact)) if text.endswith("*")]
