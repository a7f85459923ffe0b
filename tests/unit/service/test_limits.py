"""Rate limits: what a window lets through, what a call costs whom, and that a refusal says when to come back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.limits import GRAINS, Charge, Excess, Limit, MovingWindow
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.batches import Batch
from livekit_auth_server.service.limits import RateLimits
from livekit_auth_server.service.methods import GET_CALLER, LIMITED, METHODS, WITHOUT_PROJECT
from livekit_auth_server.service.ports import LimitStore, StoreUnavailable
from livekit_auth_server.service.validation import MAX_BATCH
from livekit_auth_server.stores.limits_in_memory import MemoryLimits
from support.fakes import FakeClock, LimitLog

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_NAME = {method.name: method for method in METHODS}
ONE, TWO = frozenset({"alpha"}), frozenset({"alpha", "beta"})
ASK = pb.IssueTokenRequest(role="guest", room="consult-1", identity="user-1")


class NoStore(LimitStore):
    """Can't be asked."""

    async def take(self, _caller: str, _charges: Sequence[Charge]) -> Excess | None:
        raise StoreUnavailable


@dataclass
class Limiter:
    """Rate limits in memory, with what they rest on."""

    default: tuple[Limit, ...] = ()
    unlisted: tuple[Limit, ...] = ()
    clock: FakeClock = field(default_factory=FakeClock)
    refusals: LimitLog = field(default_factory=LimitLog)

    def __post_init__(self) -> None:
        self.store = MemoryLimits(self.clock)
        self.limits = RateLimits(self.store, MemoryLimits(self.clock), self.refusals, self.default, self.unlisted)

    async def refuses(self, caller: CallerPolicy, method: str = "IssueToken", request=ASK) -> Refusal | None:
        try:
            await self.limits.charge(caller, BY_NAME[method], request)
        except Refusal as refusal:
            return refusal
        return None

    async def refusal(self, caller: CallerPolicy, method: str = "IssueToken", request=ASK) -> Refusal:
        """How such a call is refused."""
        refusal = await self.refuses(caller, method, request)
        assert refusal is not None
        return refusal

    async def passes(self, caller: CallerPolicy, method: str = "IssueToken", request=ASK, at_most: int = 50) -> int:
        """How many such calls pass before one is refused."""
        for number in range(at_most):
            if await self.refuses(caller, method, request):
                return number
        return at_most


def per_second(amount: int, *methods: str, project: str = "") -> Limit:
    return Limit(amount, 1, frozenset(methods) or None, project)


def caller(*limits: Limit, projects: frozenset[str] = ONE, id_: str = "spiffe://example.org/web") -> CallerPolicy:
    return CallerPolicy(id_, (AllowEntry("all", projects),), projects, projects, limits)


def batch(*projects: str) -> Batch:
    """A batch as it was read; too large a one has no entries."""
    count = len(projects)
    return Batch(count, (b"",) * count, projects) if 1 <= count <= MAX_BATCH else Batch(count)


# --- a window ---


TICK = 1 / 1024  # of a window: what floating point adds up exactly; four of them are a grain
TICKS = st.integers(0, 5) | st.integers(0, 300) | st.integers(1015, 1030)


@given(
    amount=st.integers(1, 12),
    seconds=st.sampled_from((1, 60)),
    calls=st.lists(st.tuples(TICKS, st.integers(1, 4)), max_size=150),
)
def test_no_window_holds_more_than_the_limit_or_forgoes_more_than_a_grain(amount, seconds, calls):
    window, now, passed = MovingWindow(Limit(amount, seconds)), 5000.0, []
    for ticks, cost in calls:
        now += ticks * TICK * seconds
        if cost > amount:
            continue
        wait = window.wait(cost, now)
        if wait == 0:
            window.add(cost, now)
            passed.append((now, cost))
        else:
            longest = seconds + seconds / GRAINS
            assert sum(c for at, c in passed if at > now - longest) + cost > amount
            assert 0 < wait <= seconds
    for start, _ in passed:
        assert sum(cost for at, cost in passed if start <= at < start + seconds) <= amount


@given(
    amount=st.integers(4, 12),
    calls=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 4)), min_size=1, max_size=60),
)
def test_a_wait_is_neither_too_long_nor_too_short(amount, calls):
    window, now = MovingWindow(Limit(amount, 1)), 5000.0
    for ticks, cost in calls:
        now += ticks * TICK
        wait = window.wait(cost, now)
        if wait == 0:
            window.add(cost, now)
        elif wait > TICK / 2:
            assert window.wait(cost, now + wait - TICK / 2) > 0
            now += wait
            assert window.wait(cost, now) == 0


def test_calls_close_together_leave_together_with_the_last_of_them():
    window = MovingWindow(Limit(5, 1))
    window.add(4, 1000.0)
    window.add(1, 1000.0 + 3 * TICK)
    assert window.wait(1, 1001.0) == 3 * TICK
    assert window.wait(5, 1001.0 + 3 * TICK) == 0


def test_a_window_is_small_whatever_its_amount():
    window = MovingWindow(Limit(9_999_999, 1))
    for number in range(20_000):
        window.add(1, 1000 + number / 10_000)
        window.wait(1, 1000 + number / 10_000)
    assert len(window._runs) <= GRAINS + 1


def test_asking_for_more_than_can_ever_fit_is_a_mistake_of_the_program():
    with pytest.raises(ValueError, match="never fits"):
        MovingWindow(Limit(3, 1)).wait(4, 0.0)


@pytest.mark.parametrize(("seconds", "rate"), [(1, "5/s"), (60, "5/m"), (3600, "5/h"), (86400, "5/d")])
def test_a_limit_is_named_as_it_is_written(seconds, rate):
    assert Limit(5, seconds).rate == rate
    assert Limit(5, seconds, frozenset({"VerifyToken", "IssueToken"}), "alpha").key == (
        f"{rate}|IssueToken,VerifyToken|alpha"
    )


# --- a caller's limits ---


async def test_a_caller_is_refused_over_its_limit_and_told_when_to_come_back():
    limiter, web = Limiter(), caller(per_second(3))
    assert await limiter.passes(web) == 3
    limiter.clock.stopwatch += 0.3754
    refusal = await limiter.refusal(web)
    assert (refusal.reason, refusal.metadata) == (Reason.RATE_LIMITED, {"limit": "3/s", "limit_methods": "any"})
    assert refusal.retry_after == 0.625  # 0.6246, rounded up
    assert "3/s" in refusal.message
    limiter.clock.stopwatch += refusal.retry_after
    assert await limiter.passes(web) == 3


async def test_what_is_refused_is_not_counted():
    limiter, web = Limiter(), caller(per_second(3), Limit(7, 60))
    assert await limiter.passes(web) == 3
    for _ in range(20):
        assert await limiter.refuses(web)
    limiter.clock.stopwatch += 1
    assert await limiter.passes(web) == 3
    limiter.clock.stopwatch += 1
    assert await limiter.passes(web) == 1


async def test_of_several_limits_the_longest_wait_is_named():
    limiter, web = Limiter(), caller(per_second(2), Limit(2, 60))
    assert await limiter.passes(web) == 2
    refusal = await limiter.refusal(web)
    assert (refusal.metadata["limit"], refusal.retry_after) == ("2/m", 60)
    limiter.clock.stopwatch += 1.5
    assert (await limiter.refusal(web)).retry_after == 58.5


async def test_callers_have_budgets_of_their_own():
    limiter = Limiter()
    assert await limiter.passes(caller(per_second(3))) == 3
    assert await limiter.passes(caller(per_second(3), id_="spiffe://example.org/other")) == 3


async def test_a_caller_without_limits_has_none_and_leaves_nothing_behind():
    limiter = Limiter()
    assert await limiter.passes(caller()) == 50
    assert not limiter.store._windows


async def test_an_unchanged_limit_keeps_its_count_over_a_new_policy():
    limiter = Limiter()
    assert await limiter.passes(caller(per_second(3))) == 3
    assert await limiter.passes(caller(per_second(3), Limit(50, 60))) == 0


@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_wall_clock_that_is_set_changes_nothing(step):
    limiter, web = Limiter(), caller(per_second(3))
    assert await limiter.passes(web) == 3
    limiter.clock.time += step
    assert (await limiter.refusal(web)).retry_after == 1
    limiter.clock.stopwatch += 1
    assert await limiter.passes(web) == 3


async def test_windows_that_nobody_uses_are_forgotten():
    limiter = Limiter()
    for number in range(100):
        await limiter.limits.charge(caller(per_second(3), id_=f"spiffe://example.org/{number}"), GET_CALLER, None)
    limiter.clock.stopwatch += 61
    await limiter.limits.charge(caller(per_second(3)), GET_CALLER, None)
    assert len(limiter.store._windows) == 1


# --- methods and projects ---


async def test_a_limit_counts_the_methods_that_it_names_together_and_no_other():
    limiter, web = Limiter(), caller(per_second(3, "IssueToken", "VerifyToken"))
    assert await limiter.passes(web, "GetCaller", pb.GetCallerRequest()) == 50
    assert await limiter.refuses(web, "VerifyToken", pb.VerifyTokenRequest()) is None
    assert await limiter.passes(web) == 2
    assert (await limiter.refusal(web)).metadata["limit_methods"] == "IssueToken,VerifyToken"
    assert await limiter.refuses(web, "VerifyToken", pb.VerifyTokenRequest())


async def test_a_limit_of_a_project_counts_calls_in_it():
    limiter, web = Limiter(), caller(per_second(3, project="alpha"), projects=TWO)
    beta = pb.IssueTokenRequest(project="beta")
    alpha = pb.IssueTokenRequest(project="alpha")
    assert await limiter.passes(web, request=beta) == 50
    assert await limiter.passes(web, request=alpha) == 3
    assert (await limiter.refusal(web, request=alpha)).metadata["limit_project"] == "alpha"


async def test_the_only_project_of_a_caller_needs_no_name():
    assert await Limiter().passes(caller(per_second(3, project="alpha"))) == 3


async def test_a_call_without_a_project_counts_in_the_default_one():
    limiter, web = Limiter(), caller(per_second(3, project="alpha"), per_second(5, project="beta"), projects=TWO)
    web = replace(web, default_project="beta")
    assert await limiter.passes(web) == 5
    assert (await limiter.refusal(web)).metadata["limit_project"] == "beta"
    assert await limiter.refuses(web, "BatchIssueTokens", batch(""))
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="alpha")) == 3


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        *((name, BY_NAME[name].request()) for name in LIMITED if name not in WITHOUT_PROJECT),
        ("IssueToken", None),
        ("BatchIssueTokens", None),
    ],
)
async def test_a_call_whose_project_is_not_known_counts_in_every_one(method, request_):
    web = caller(per_second(3, project="alpha"), per_second(2, project="beta"), projects=TWO)
    assert await Limiter().passes(web, method, request_) == 2


async def test_get_caller_has_no_project():
    assert await Limiter().passes(caller(per_second(3, project="alpha")), "GetCaller", pb.GetCallerRequest()) == 50


# --- batches ---


async def test_a_batch_costs_as_much_as_its_entries_alone():
    limiter, web = Limiter(), caller(per_second(10, "IssueToken"))
    assert await limiter.refuses(web, "BatchIssueTokens", batch(*[""] * 8)) is None
    assert await limiter.refuses(web, "BatchIssueTokens", batch(*[""] * 3))
    assert await limiter.passes(web) == 2


async def test_a_batch_that_waits_is_told_when_all_of_it_fits():
    limiter, web = Limiter(), caller(per_second(4))
    for _ in range(4):
        assert await limiter.refuses(web) is None
        limiter.clock.stopwatch += 0.125
    refusal = await limiter.refusal(web, "BatchIssueTokens", batch("", "", ""))
    assert refusal.retry_after == 0.75
    assert (await limiter.refusal(web)).retry_after == 0.5


async def test_a_batch_over_the_whole_limit_is_told_to_be_smaller_and_not_to_wait():
    limiter, web = Limiter(), caller(per_second(4))
    refusal = await limiter.refusal(web, "BatchIssueTokens", batch(*[""] * 5))
    assert (refusal.reason, refusal.retry_after) == (Reason.BATCH_EXCEEDS_LIMIT, None)
    assert refusal.metadata == {"limit": "4/s", "limit_methods": "any"}
    assert "5 calls" in refusal.message
    assert await limiter.passes(web) == 4


async def test_a_batch_costs_each_project_its_own_entries():
    limiter, web = Limiter(), caller(per_second(3, project="alpha"), per_second(9), projects=TWO)
    assert await limiter.refuses(web, "BatchIssueTokens", batch("alpha", "beta", "beta", "beta", "alpha")) is None
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="alpha")) == 1
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="beta")) == 3


async def test_a_batch_of_one_costs_its_project_alone():
    limiter, web = Limiter(), caller(per_second(3, project="alpha"), per_second(3, project="beta"), projects=TWO)
    assert await limiter.passes(web, "BatchIssueTokens", batch("alpha")) == 3
    assert await limiter.passes(web, "BatchIssueTokens", batch("beta")) == 3


async def test_a_batch_of_500_costs_its_project_500():
    limiter, web = Limiter(), caller(per_second(1000, project="alpha"), per_second(1, project="beta"), projects=TWO)
    assert await limiter.passes(web, "BatchIssueTokens", batch(*["alpha"] * 500)) == 2


@pytest.mark.parametrize("entries", [0, 501])
async def test_a_batch_of_a_size_that_is_refused_anyway_counts_once(entries):
    limiter, web = Limiter(), caller(per_second(3))
    assert await limiter.passes(web, "BatchIssueTokens", batch(*[""] * entries)) == 3


async def test_a_dry_run_counts():
    limiter, web = Limiter(), caller(per_second(3))
    assert await limiter.passes(web, request=pb.IssueTokenRequest(validate_only=True)) == 3


# --- defaults, unlisted callers, an absent store ---


async def test_the_default_is_for_what_no_limit_of_the_caller_counts():
    limiter = Limiter(default=(per_second(2),))
    web = caller(per_second(5, "IssueToken", project="alpha"), projects=TWO)
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="alpha")) == 5
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="beta")) == 2
    assert await limiter.passes(web, "GetCaller", pb.GetCallerRequest()) == 0
    assert await limiter.passes(caller(id_="spiffe://example.org/other")) == 2


async def test_a_batch_is_divided_between_a_callers_limits_and_the_default():
    limiter = Limiter(default=(per_second(2),))
    web = caller(per_second(5, project="alpha"), projects=TWO)
    assert await limiter.refuses(web, "BatchIssueTokens", batch("alpha", "alpha", "alpha", "beta")) is None
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="alpha")) == 2
    assert await limiter.passes(web, request=pb.IssueTokenRequest(project="beta")) == 1


async def test_unlisted_callers_share_one_budget():
    limiter = Limiter(unlisted=(per_second(3),))
    for _ in range(3):
        await limiter.limits.charge_unlisted("IssueToken")
    with pytest.raises(Refusal, match="RATE_LIMITED") as caught:
        await limiter.limits.charge_unlisted("GetCaller")
    assert caught.value.retry_after == 1
    assert limiter.refusals.counted == {"GetCaller": 1}
    assert not limiter.store._windows


async def test_refused_calls_are_counted_by_method():
    limiter, web = Limiter(), caller(per_second(3))
    await limiter.passes(web)
    await limiter.passes(web, "BatchIssueTokens", batch(*[""] * 9))
    assert limiter.refusals.counted == {"IssueToken": 1, "BatchIssueTokens": 1}


async def test_a_store_that_is_away_refuses_callers_with_limits_and_no_others():
    limiter = Limiter()
    limiter.limits = RateLimits(NoStore(), limiter.store, limiter.refusals)
    refusal = await limiter.refusal(caller(per_second(3)))
    assert (refusal.reason, refusal.retry_after) == (Reason.LIMITS_UNAVAILABLE, None)
    assert await limiter.refuses(caller()) is None


async def test_charges_are_taken_together_or_not_at_all():
    store = MemoryLimits(FakeClock())
    wide, narrow = Limit(100, 60), Limit(1, 1)
    assert await store.take("a", [Charge(wide, 60), Charge(narrow, 1)]) is None
    excess = await store.take("a", [Charge(wide, 30), Charge(narrow, 1)])
    assert excess is not None
    assert excess.limit is narrow
    assert await store.take("a", [Charge(wide, 40)]) is None
