"""GetCaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from livekit_auth.v1 import auth_service_pb2 as pb

if TYPE_CHECKING:
    from livekit_auth_server.core.policy import AllowEntry, Matcher
    from livekit_auth_server.service.admission import Caller
    from livekit_auth_server.service.validation import Valid


async def get_caller(caller: Caller, _request: Valid[pb.GetCallerRequest]) -> pb.GetCallerResponse:
    """GetCaller: for every caller that could be identified, its identity; for a listed one, its policy too."""
    response = pb.GetCallerResponse(
        workload_id=caller.identified.identity.text,
        certificate_serial=caller.identified.serial,
        certificate_expire_time=Timestamp(seconds=caller.identified.valid_until),
    )
    if caller.policy is not None:
        response.known = True
        response.policy_revision = caller.state_policy.revision
        response.allow.extend(_entry(entry) for entry in caller.policy.entries)
        response.verify_webhooks.extend(sorted(caller.policy.verify_webhooks))
        response.verify_tokens.extend(sorted(caller.policy.verify_tokens))
    return response


def _entry(entry: AllowEntry) -> pb.AllowEntry:
    return pb.AllowEntry(
        name=entry.name,
        projects=sorted(entry.projects),
        roles=sorted(entry.roles),
        grants=sorted(entry.grants),
        powers=sorted(entry.powers),
        rooms=_matchers(entry.rooms),
        identities=_matchers(entry.identities),
        default_ttl=Duration(seconds=entry.default_ttl),
        max_ttl=Duration(seconds=entry.max_ttl),
    )


def _matchers(matcher: Matcher) -> list[pb.Matcher]:
    if matcher.any:
        return [pb.Matcher(any=True)]
    exact = [pb.Matcher(exact=value) for value in sorted(matcher.exact)]
    return exact + [pb.Matcher(prefix=value) for value in sorted(matcher.prefixes)]
