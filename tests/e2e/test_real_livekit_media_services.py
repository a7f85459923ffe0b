"""Tokens for egress, ingress and SIP, as far as a LiveKit without those services goes: it lets the bearer through to
where the service would be, and nobody else.
"""

from __future__ import annotations

import pytest
from aiohttp import ServerDisconnectedError
from livekit.api import LiveKitAPI, ServerError
from livekit.protocol import egress, ingress, sip

from livekit_auth import Denied

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = {
    "recordings": [
        lambda api: api.egress.list_egress(egress.ListEgressRequest()),
        lambda api: api.egress.stop_egress(egress.StopEgressRequest(egress_id="EG_none")),
    ],
    "feeds": [
        lambda api: api.ingress.list_ingress(ingress.ListIngressRequest()),
        lambda api: api.ingress.delete_ingress(ingress.DeleteIngressRequest(ingress_id="IN_none")),
    ],
    "telephony": [
        lambda api: api.sip.list_inbound_trunk(sip.ListSIPInboundTrunkRequest()),
        lambda api: api.sip.list_dispatch_rule(sip.ListSIPDispatchRuleRequest()),
    ],
}


@pytest.mark.parametrize("role", CALLS)
async def test_the_role_that_may_is_let_through_to_the_service(callers, role):
    assert await _refusals(await callers.media.issue_token(role=role), CALLS[role]) == [False] * len(CALLS[role])


@pytest.mark.parametrize("role", CALLS)
async def test_the_other_roles_are_not(callers, role):
    for other in CALLS.keys() - {role}:
        token = await callers.media.issue_token(role=other)
        assert await _refusals(token, CALLS[role]) == [True] * len(CALLS[role])


@pytest.mark.parametrize("role", CALLS)
async def test_neither_are_guests_and_moderators(callers, room, role):
    guest = await callers.web.issue_token(room=room, identity="user-1", role="guest")
    moderator = await callers.moderation.issue_token(room=room, role="moderator")
    for token in (guest, moderator):
        assert await _refusals(token, CALLS[role]) == [True] * len(CALLS[role])


@pytest.mark.parametrize("role", CALLS)
async def test_the_policy_gives_these_roles_to_nobody_else(callers, role):
    for caller in (callers.web, callers.operations, callers.agents):
        with pytest.raises(Denied):
            await caller.issue_token(role=role)


async def _refusals(token, calls):
    """For each call, whether LiveKit refused the token; what it says for want of the service doesn't count."""
    return [await _refuses(token, call) for call in calls]


async def _refuses(token, call):
    async with LiveKitAPI.with_token(token.token, token.url) as livekit:
        try:
            await call(livekit)
        except ServerError as error:
            return (error.status, error.code) in {(401, "unauthenticated"), (403, "permission_denied")}
        except ServerDisconnectedError:
            pass  # its handler fails for want of a store, after the check of the token
    return False
