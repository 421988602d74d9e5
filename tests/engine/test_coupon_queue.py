"""The queue before a campaign: who asks at the same moment is served by one call, and told what is true for each."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from engine.coupon_queue import DEADLINE_STEP_S, SERVED_MAX, CouponQueue
from engine.coupons import Coupon
from engine.engine import Engine
from engine.errors import CouponAlreadyIssued, CouponsExhausted, UnknownCampaign
from engine.request_id import REQUEST_ID
from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status
from tests.engine.shop import PARTITIONS, campaign, events
from tests.engine.trouble import Proxy


@pytest.fixture(autouse=True)
async def open_campaign(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign(quantity=1_000))


async def ask(shop: Engine, users: Sequence[str], campaign_id: str = "spring") -> list[Coupon | BaseException]:
    return await asyncio.gather(*(shop.coupons.issue(user, campaign_id) for user in users), return_exceptions=True)


def numbers(outcomes: Sequence[Coupon | BaseException]) -> list[int]:
    assert all(isinstance(outcome, Coupon) for outcome in outcomes), outcomes
    return [outcome.issue_number for outcome in outcomes if isinstance(outcome, Coupon)]


@pytest.mark.requirement("R4.1", "R4.9")
async def test_who_asks_at_the_same_moment_is_served_in_that_order_by_one_call(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    users = [f"user-{number}" for number in range(SERVED_MAX)]
    assert numbers(await ask(troubled, users)) == list(range(1, SERVED_MAX + 1))
    assert proxy.times_sent("issue_coupons") == 1
    assert (await engine.coupons.read_campaign("spring")).issued == SERVED_MAX


async def test_more_than_a_call_may_serve_are_served_by_several(troubled: Engine, proxy: Proxy) -> None:
    users = [f"user-{number}" for number in range(2 * SERVED_MAX + 1)]
    assert numbers(await ask(troubled, users)) == list(range(1, 2 * SERVED_MAX + 2))
    assert proxy.times_sent("issue_coupons") == 3


@pytest.mark.requirement("R4.9")
async def test_the_last_coupons_go_to_those_who_came_first(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign("few", quantity=2))
    first, second, third, again, fourth = await ask(engine, ["ann", "ben", "cho", "ann", "dan"], "few")
    assert numbers([first, second]) == [1, 2]
    assert isinstance(third, CouponsExhausted)
    assert isinstance(fourth, CouponsExhausted)
    assert isinstance(first, Coupon)
    assert isinstance(again, CouponAlreadyIssued)
    assert again.coupon_id == first.coupon_id


async def test_campaigns_are_asked_apart(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign("summer", quantity=5))
    outcomes = await asyncio.gather(
        ask(engine, ["ann", "ben"]), ask(engine, ["ann", "ben"], "summer"), ask(engine, ["ann"], "winter")
    )
    assert [numbers(each) for each in outcomes[:2]] == [[1, 2], [1, 2]]
    assert isinstance(outcomes[2][0], UnknownCampaign)


async def test_each_issue_says_the_request_that_it_is_for(engine: Engine) -> None:
    async def requested(user: str, request_id: str) -> None:
        REQUEST_ID.set(request_id)
        await engine.coupons.issue(user, "spring")

    await asyncio.gather(
        *(asyncio.create_task(requested(user, id_)) for user, id_ in [("ann", "a-1"), ("ben", ""), ("cho", "c-3")])
    )
    issued = [event for event in await events(engine) if event["type"] == "coupon.issued"]
    assert [(event["user"], event["request"]) for event in issued] == [("ann", "a-1"), ("ben", ""), ("cho", "c-3")]


@pytest.mark.requirement("R4.9")
async def test_a_call_whose_reply_is_lost_is_nobodys_refusal(engine: Engine, troubled: Engine, proxy: Proxy) -> None:
    """But for the user who asked twice: of the two, one is told that there is a coupon already."""
    await engine.coupons.issue("old", "spring")
    proxy.lose_reply("issue_coupons")
    *new, twice = await ask(troubled, ["ann", "ben", "cho", "ann"])
    assert numbers(new) == [2, 3, 4]
    assert isinstance(twice, CouponAlreadyIssued)
    assert proxy.times_sent("issue_coupons") == 2
    assert (await engine.coupons.read_campaign("spring")).issued == 4


async def test_who_has_gone_before_the_call_is_not_served_and_holds_up_nobody(engine: Engine) -> None:
    gone, stays = (asyncio.ensure_future(engine.coupons.issue(user, "spring")) for user in ("ann", "ben"))
    await asyncio.sleep(0)  # both stand in the queue
    gone.cancel()
    assert (await stays).issue_number == 1
    assert gone.cancelled()
    assert (await engine.coupons.read_campaign("spring")).issued == 1


async def test_who_has_gone_takes_nobodys_request_with_it(engine: Engine) -> None:
    async def requested(user: str) -> None:
        REQUEST_ID.set(f"of-{user}")
        await engine.coupons.issue(user, "spring")

    gone, *stay = (asyncio.create_task(requested(user)) for user in ("ann", "ben", "cho"))
    await asyncio.sleep(0)  # all stand in the queue
    gone.cancel()
    await asyncio.gather(*stay)
    issued = [event for event in await events(engine) if event["type"] == "coupon.issued"]
    assert [(event["user"], event["request"]) for event in issued] == [("ben", "of-ben"), ("cho", "of-cho")]


async def test_who_has_gone_does_not_take_a_place_from_who_comes_later(engine: Engine) -> None:
    """Alone in the queue, and gone before the end of the tick: the next one is the first."""
    gone = asyncio.ensure_future(engine.coupons.issue("ann", "spring"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    assert engine.coupons._queue._batches == {}
    assert numbers(await ask(engine, ["ben", "cho"])) == [1, 2]


async def test_who_asks_alone_is_served_by_a_call_of_its_own(troubled: Engine, proxy: Proxy) -> None:
    for number, user in enumerate(["ann", "ben"], 1):
        assert numbers(await ask(troubled, [user])) == [number]
        assert proxy.times_sent("issue_coupons") == number
    proxy.lose_reply("issue_coupons")
    assert numbers(await ask(troubled, ["cho"])) == [3]


async def test_who_is_nearly_out_of_time_takes_nobody_elses(troubled: Engine, proxy: Proxy) -> None:
    now = asyncio.get_running_loop().time()
    queue, runner = troubled.coupons._queue, troubled.runner
    begun = runner.begin()
    flows = [Flow(begun.generation, now + seconds, begun.now_ms, "") for seconds in (2.0, 2.0 + DEADLINE_STEP_S, 2.0)]
    await asyncio.gather(*(queue.ask(flow, "spring", f"user-{at}") for at, flow in enumerate(flows)))
    assert proxy.times_sent("issue_coupons") == 2


async def test_who_is_served_together_shares_the_earliest_deadline(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a later one, who is out of time would be told so too late."""
    start = (asyncio.get_running_loop().time() // DEADLINE_STEP_S + 8) * DEADLINE_STEP_S
    queue, begun = engine.coupons._queue, engine.runner.begin()
    deadlines: list[float] = []
    change = ScriptRunner.change

    def seen(self: ScriptRunner, flow: Flow, *call: Any) -> Awaitable[Reply]:
        deadlines.append(flow.deadline)
        return change(self, flow, *call)

    monkeypatch.setattr(ScriptRunner, "change", seen)
    flows = [Flow(begun.generation, start + share, begun.now_ms, "") for share in (0.12, 0.03, 0.21)]
    await asyncio.gather(*(queue.ask(flow, "spring", f"user-{at}") for at, flow in enumerate(flows)))
    assert deadlines == [start + 0.03]


async def test_a_full_line_is_served_after_those_who_came_before_it(engine: Engine) -> None:
    """Though it is another line: its deadlines are later."""
    await engine.coupons.put_campaign(campaign("few", quantity=SERVED_MAX))
    now = asyncio.get_running_loop().time()
    queue, begun = engine.coupons._queue, engine.runner.begin()

    def ask_at(seconds: float, user: str) -> "asyncio.Future[Reply]":
        return asyncio.ensure_future(queue.ask(Flow(begun.generation, now + seconds, begun.now_ms, ""), "few", user))

    first = ask_at(2.0, "first")
    later = [ask_at(2.0 + DEADLINE_STEP_S, f"later-{number}") for number in range(SERVED_MAX)]
    assert (await first).text(1).startswith("1,")
    assert [(await each).status for each in later] == [Status.ISSUED] * (SERVED_MAX - 1) + [Status.EXHAUSTED]


async def test_what_fails_a_call_is_told_to_all_who_wait_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it an answer that this program cannot read."""
    change = engine.runner.change

    async def cut_short(*arguments: Any, **named: Any) -> Reply:
        reply = await change(*arguments, **named)
        if arguments[2] == "issue_coupons":
            del reply.values[0][1:]
        return reply

    monkeypatch.setattr(engine.runner, "change", cut_short)
    outcomes = await ask(engine, ["ann", "ben", "cho"])
    assert isinstance(outcomes[0], Coupon)
    assert [type(each) for each in outcomes[1:]] == [IndexError, IndexError]


async def test_a_recovery_between_begins_all_of_them_anew(engine: Engine, troubled: Engine, proxy: Proxy) -> None:
    for partition in range(PARTITIONS):
        assert await engine.recovery.raise_generation(partition, 2) is not None
    assert numbers(await ask(troubled, ["ann", "ben", "cho"])) == [1, 2, 3]
    assert proxy.times_sent("issue_coupons") == 2


@pytest.mark.requirement("R4.1")
async def test_whose_deadline_is_in_another_line_does_not_overtake(engine: Engine) -> None:
    """Lines of one tick are served in the order of who came first in each."""
    await engine.coupons.put_campaign(campaign("few", quantity=2))
    queue, begun = CouponQueue(engine.runner), engine.runner.begin()
    edge = (int(begun.deadline / DEADLINE_STEP_S) + 1) * DEADLINE_STEP_S
    flows = [Flow(begun.generation, edge + late_s, begun.now_ms, "") for late_s in (-0.01, -0.01, 0.01)]
    asked = [queue.ask(flow, "few", user) for flow, user in zip(flows, ("first", "second", "third"), strict=True)]
    replies = await asyncio.gather(*asked)
    assert [reply.status for reply in replies] == [Status.ISSUED, Status.ISSUED, Status.EXHAUSTED]
    assert [reply.text(1).split(",")[0] for reply in replies[:2]] == ["1", "2"]
