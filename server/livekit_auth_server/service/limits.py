"""What a call costs, and its refusal when that is too much.

Guarantees: a call is counted before it is decided or verified, whatever comes of it, and a call that can't be read as
well; a refused call counts nowhere. What a method's calls cost, its declaration says (service.methods).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit_auth_server.core.limits import Charge, Limit
from livekit_auth_server.core.refusal import Reason, Refusal, rate_limited
from livekit_auth_server.service.costs import UNKNOWN
from livekit_auth_server.service.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.policy import CallerPolicy
    from livekit_auth_server.service.costs import Projects
    from livekit_auth_server.service.method import AnyMethod
    from livekit_auth_server.service.ports import LimitObserver, LimitStore

UNLISTED = "(unlisted)"
"""The one name for all callers that the policy doesn't list. No workload identity has this form."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Charges calls. `default` is for calls that no limit of their caller counts, `unlisted` for unknown callers.

    `local` counts unlisted callers: in this process, whatever `store` is, so that they can't keep a shared store busy.
    """

    store: LimitStore
    local: LimitStore
    observer: LimitObserver
    default: Sequence[Limit] = ()
    unlisted: Sequence[Limit] = ()

    async def charge(self, caller: CallerPolicy, method: AnyMethod, request: object) -> None:
        """Counts a listed caller's call. `request` is what the method's `cost` reads; None is one that can't be read.

        Raises RATE_LIMITED, BATCH_EXCEEDS_LIMIT or LIMITS_UNAVAILABLE.
        """
        if not caller.limits and not self.default:
            return
        costs = UNKNOWN if request is None else method.cost(request, caller, method.permission)
        charges = self._charges(caller, method.limit, costs)
        if charges:
            await self._take(self.store, caller.id, method.name, charges)

    async def charge_unlisted(self, method: str) -> None:
        """Counts a call of a caller that the policy doesn't list. Raises RATE_LIMITED."""
        if self.unlisted:
            await self._take(self.local, UNLISTED, method, [Charge(limit, 1) for limit in self.unlisted])

    def _charges(self, caller: CallerPolicy, method: str, costs: Projects) -> list[Charge]:
        limits = caller.limits
        charges = [Charge(limit, cost) for limit in limits if (cost := _cost(limit, method, costs))]
        if not self.default:
            return charges
        rest = {name: cost for name, cost in costs.items() if not any(limit.counts(method, name) for limit in limits)}
        return charges + [Charge(limit, cost) for limit in self.default if (cost := _cost(limit, method, rest))]

    async def _take(self, store: LimitStore, caller: str, method: str, charges: list[Charge]) -> None:
        for limit, cost in charges:
            if cost > limit.amount:
                self.observer.limited(method)
                message = f"this counts as {cost} calls, and the limit of {limit.rate} never allows as many: send less"
                raise Refusal(Reason.BATCH_EXCEEDS_LIMIT, message, _metadata(limit))
        try:
            excess = await store.take(caller, charges)
        except StoreUnavailable:
            message = "rate limits can't be checked now, and this server answers nothing without them"
            raise Refusal(Reason.LIMITS_UNAVAILABLE, message) from None
        if excess is not None:
            self.observer.limited(method)
            wait = math.ceil(excess.retry_after * 1000) / 1000
            message = f"over the limit of {excess.limit.rate}; try again in {wait:.3f} s"
            raise rate_limited(message, _metadata(excess.limit), retry_after=wait)


def _cost(limit: Limit, method: str, costs: Projects) -> int:
    """What the call costs this limit; 0 when the limit doesn't count it."""
    return sum(cost for project, cost in costs.items() if limit.counts(method, project))


def _metadata(limit: Limit) -> dict[str, str]:
    """The limit's own words, so that a caller can tell which of several it met."""
    methods = ",".join(sorted(limit.methods)) if limit.methods is not None else "any"
    return {"limit": limit.rate, "limit_methods": methods} | ({"limit_project": limit.project} if limit.project else {})
