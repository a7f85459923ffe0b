"""Bytes per owner and in all, and whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from livekit_auth_server.service.budget import Budget


def started(budget: Budget, owner: str, amount: int) -> asyncio.Task[None]:
    return asyncio.create_task(budget.take(owner, amount))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_owner_has_its_share_and_all_together_the_total() -> None:
    budget = Budget(10, 4)
    assert budget.try_take("a", 4)
    assert not budget.try_take("a", 1)
    assert budget.try_take("b", 4)
    assert not budget.try_take("c", 3)
    assert budget.try_take("c", 2)
    assert not budget.try_take("d", 1)
    assert budget.heaviest() == "a"


async def test_a_request_over_the_bounds_gets_its_turn_alone() -> None:
    budget = Budget(10, 4)
    assert budget.try_take("a", 50)
    assert not budget.try_take("b", 1)
    budget.give("a", 50)
    assert budget.try_take("b", 1)
    assert not budget.try_take("c", 50)


async def test_small_amounts_wait_for_their_owners_share_alone() -> None:
    budget = Budget(10, 4, small=2)
    assert budget.try_take("a", 50)
    assert budget.try_take("b", 2)
    assert not budget.try_take("a", 1)


async def test_owners_take_turns_however_many_of_one_wait() -> None:
    budget, order = Budget(1, 1), []
    await budget.take("x", 1)

    async def use(owner: str) -> None:
        await budget.take(owner, 1)
        order.append(owner)
        budget.give(owner, 1)

    tasks = [asyncio.create_task(use(owner)) for owner in "aaaabc"]
    await settle()
    assert budget.waiting == {"a": 4, "b": 1, "c": 1}
    budget.give("x", 1)
    await asyncio.gather(*tasks)
    assert "".join(order) == "abcaaa"
    assert budget.waiting == {}


@pytest.mark.parametrize(("newest_first", "expected"), [(False, [1, 2]), (True, [2, 1])])
async def test_an_owners_requests_go_in_order_or_newest_first(newest_first: bool, expected: list[int]) -> None:  # noqa: FBT001
    budget, order = Budget(1, 1, newest_first=newest_first), []
    await budget.take("a", 1)

    async def use(number: int) -> None:
        await budget.take("a", 1)
        order.append(number)
        budget.give("a", 1)

    tasks = [asyncio.create_task(use(number)) for number in (1, 2)]
    await settle()
    budget.give("a", 1)
    await asyncio.gather(*tasks)
    assert order == expected


async def test_a_request_that_gives_up_holds_nothing_and_blocks_nobody() -> None:
    budget = Budget(10, 10)
    await budget.take("a", 9)
    large, small = started(budget, "b", 10), started(budget, "b", 1)
    await settle()
    large.cancel()
    await small
    assert budget.waiting == {}
    assert not budget.try_take("c", 1)
    budget.give("b", 1)
    assert budget.try_take("c", 1)


async def test_a_request_that_is_cancelled_in_the_moment_of_its_turn_gives_back() -> None:
    budget = Budget(1, 1)
    await budget.take("a", 1)
    task = started(budget, "b", 1)
    await settle()
    budget.give("a", 1)  # granted, and cancelled before it runs
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert budget.try_take("c", 1)
