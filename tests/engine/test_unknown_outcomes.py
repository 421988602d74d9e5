"""A reply is lost, an original comes late, a recovery comes between: each request still has one effect, or none."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import (
    InsufficientBalance,
    OrderInProgress,
    OutcomeUnknown,
    Overloaded,
    Recovering,
    RequestInProgress,
    ServerError,
    TookTooLong,
    Unavailable,
    WriterBehind,
)
from engine.idempotency import FREE_WITHIN_S, request_key
from engine.lanes import RedisLanes
from engine.order_ids import make_order_id
from engine.orders import Order
from engine.scripts import Script
from tests.engine.shop import (
    PARTITIONS,
    UNTOUCHED,
    all_units,
    campaign,
    events,
    execute,
    lines,
    opened,
    orders_on_record,
    stock_shop,
)
from tests.engine.trouble import Proxy
from tests.engine.valkey_process import ValkeyProcess
from tests.engine.waiting import until

TWO = lines(("shirt", "M", 2), ("hat", None, 1))
HELD = {"shirt/S": (10, 0, 0), "shirt/M": (3, 2, 0), "hat/one": (2, 1, 0)}


@pytest.fixture(autouse=True)
async def shop(engine: Engine) -> None:
    await stock_shop(engine)
    await engine.wallets.charge("kim", 10_000)


async def kinds(engine: Engine) -> dict[str, int]:
    found: dict[str, int] = {}
    for event in await events(engine):
        found[event["type"]] = found.get(event["type"], 0) + 1
    return found


async def test_a_charge_of_unknown_outcome_is_never_sent_again(engine: Engine, troubled: Engine, proxy: Proxy) -> None:
    proxy.lose_reply("charge_wallet")
    with pytest.raises(OutcomeUnknown):
        await troubled.wallets.charge("kim", 7)
    assert proxy.times_sent("charge_wallet") == 1
    assert await engine.wallets.balance("kim") == 10_007
    assert (await troubled.wallets.charge("kim", 1)).balance == 10_008


async def test_what_is_out_of_time_is_not_counted_as_sent_again(redis_process: ValkeyProcess) -> None:
    async with opened(redis_process.url, request_deadline_ms=200, reply_timeout_ms=30_000) as engine:
        redis_process.freeze()
        try:
            with pytest.raises(OutcomeUnknown, match="has not answered in time"):
                await engine.orders.void("kim", make_order_id(engine.runner.now_ms(0)))
        finally:
            redis_process.thaw()
        assert engine.runner.sent_again == 0


async def test_an_adjustment_of_unknown_outcome_is_never_sent_again(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    proxy.lose_reply("adjust_stock")
    with pytest.raises(OutcomeUnknown):
        await troubled.catalog.adjust("hat", "one", 5, "count")
    assert proxy.times_sent("adjust_stock") == 1
    assert (await all_units(engine))["hat/one"] == (8, 0, 0)


@pytest.mark.parametrize("way", ["pay", "cancel"])
async def test_an_unknown_outcome_names_the_order_that_it_is_about(redis_process: ValkeyProcess, way: str) -> None:
    async with opened(redis_process.url, fresh=False, request_deadline_ms=200, reply_timeout_ms=30_000) as engine:
        order = await engine.orders.place("kim", TWO, None)
        act = engine.payments.pay if way == "pay" else engine.orders.cancel
        redis_process.freeze()
        try:
            with pytest.raises(OutcomeUnknown) as unknown:
                await act("kim", order.order_id)
        finally:
            redis_process.thaw()
    assert unknown.value.order_id == order.order_id


@pytest.mark.parametrize("before", ["claim", "reserve"])
async def test_a_request_whose_outcome_was_unknown_may_be_sent_again_once_redis_answers(
    redis_process: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Its claim is ended as soon as that can be, however long the server was silent: the test's clock stands still."""
    async with opened(redis_process.url, fresh=False, request_deadline_ms=400, reply_timeout_ms=100) as engine:
        reserve = engine.stock.reserve

        async def frozen_reserve(*arguments: Any) -> Any:
            redis_process.freeze()
            return await reserve(*arguments)

        if before == "claim":
            redis_process.freeze()
        else:
            monkeypatch.setattr(engine.stock, "reserve", frozen_reserve)
        try:
            with pytest.raises((OutcomeUnknown, Recovering)):
                await engine.orders.place("kim", TWO, None, request_key("kim", "key", "", b"order"))
            # Longer than the answer is held up by what ends the claim.
            await asyncio.sleep(FREE_WITHIN_S + 0.2)
        finally:
            redis_process.thaw()
        monkeypatch.undo()
        for _ in range(100):
            await asyncio.sleep(0.05)
            with suppress(RequestInProgress, Recovering, OutcomeUnknown):
                order = await engine.orders.place("kim", TWO, None, request_key("kim", "key", "", b"order"))
                break
        else:
            pytest.fail("the key is still claimed")
    assert order.status == "awaiting_payment"


async def test_a_claim_of_unknown_outcome_leaves_the_mark_of_an_earlier_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One issued a coupon and did not learn of its grant, the next lost its claim's reply: the third is answered it."""
    await engine.coupons.put_campaign(campaign("spring"))
    claims, reply_is_lost = engine.coupons._key_claims, OutcomeUnknown("lost")
    claim = claims._claim

    async def lost_grant(*_: Any, **__: Any) -> Any:
        raise reply_is_lost

    async def lost_claim(flow: Any, partition: int, key: Any, lease_ms: int) -> bool:
        resumed = await claim(flow, partition, key, lease_ms)
        if lease_ms:
            raise reply_is_lost
        return resumed

    for lost, name, instead in ((engine.coupons, "_grant", lost_grant), (claims, "_claim", lost_claim)):
        with monkeypatch.context() as patched:
            patched.setattr(lost, name, instead)
            with pytest.raises(OutcomeUnknown):
                await engine.coupons.issue("kim", "spring", request_key("kim", "key", "", b"coupon"))
    coupon = await engine.coupons.issue("kim", "spring", request_key("kim", "key", "", b"coupon"))
    assert coupon.coupon_id == (await engine.coupons.read_coupon("kim", coupon.coupon_id)).coupon_id


@pytest.mark.requirement("R0.3", "R0.4")
@pytest.mark.parametrize("lost", ["reserve_stock", "place_order", "both"])
async def test_an_order_whose_replies_are_lost_is_placed_once(
    engine: Engine, troubled: Engine, proxy: Proxy, lost: str
) -> None:
    for script in ("reserve_stock", "place_order") if lost == "both" else (lost,):
        proxy.lose_reply(script)
    order = await troubled.orders.place("kim", TWO, None)
    assert (order.status, order.total, len(order.positions)) == ("awaiting_payment", 2_500, 3)
    assert await all_units(engine) == HELD
    assert await orders_on_record(engine) == {order.order_id: (await orders_on_record(engine))[order.order_id]}
    count = await kinds(engine)
    assert (count["stock.reserved"], count["order.placed"]) == (2, 1)


@pytest.mark.requirement("R0.4")
@pytest.mark.parametrize("balance", [10_000, 2_499])
async def test_a_checkout_whose_reply_is_lost_is_paid_once(
    engine: Engine, troubled: Engine, proxy: Proxy, balance: int
) -> None:
    await engine.wallets.charge("lee", balance)
    proxy.lose_reply("checkout_order")
    if balance == 10_000:
        order = await troubled.orders.checkout("lee", TWO, None)
        assert (order.status, order.total, len(order.positions)) == ("completed", 2_500, 3)
        assert await all_units(engine) == HELD
    else:
        with pytest.raises(InsufficientBalance) as refused:
            await troubled.orders.checkout("lee", TWO, None)
        assert (refused.value.balance, refused.value.total) == (2_499, 2_500)
        assert await all_units(engine) == UNTOUCHED
    assert proxy.times_sent("checkout_order") == 2
    assert await engine.wallets.balance("lee") == (7_500 if balance == 10_000 else 2_499)
    assert (await kinds(engine))["order.checked_out"] == 1


@pytest.mark.requirement("R0.4")
async def test_a_payment_whose_reply_is_lost_is_made_once(engine: Engine, troubled: Engine, proxy: Proxy) -> None:
    order = await troubled.orders.place("kim", TWO, None)
    proxy.lose_reply("pay_order")
    paid = await troubled.payments.pay("kim", order.order_id)
    assert (paid.status, proxy.times_sent("pay_order")) == ("completed", 2)
    assert await engine.wallets.balance("kim") == 7_500


async def test_a_failing_payment_whose_reply_is_lost_gives_everything_back(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    order = await troubled.orders.place("lee", TWO, None)
    proxy.lose_reply("pay_order")
    proxy.lose_reply("release_stock")
    with pytest.raises(InsufficientBalance) as refused:
        await troubled.payments.pay("lee", order.order_id)
    assert (refused.value.balance, refused.value.total) == (0, 2_500)
    assert await all_units(engine) == UNTOUCHED


async def test_a_cancellation_whose_reply_is_lost_happens_once(engine: Engine, troubled: Engine, proxy: Proxy) -> None:
    order = await troubled.orders.place("kim", TWO, None)
    proxy.lose_reply("cancel_order")
    assert (await troubled.orders.cancel("kim", order.order_id)).failure == "cancelled"
    assert await all_units(engine) == UNTOUCHED
    assert (await kinds(engine))["order.failed"] == 1


async def test_a_cancellation_with_a_key_whose_reply_is_lost_gives_everything_back_and_is_no_replay(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    order = await troubled.orders.place("kim", TWO, None)
    proxy.lose_reply("cancel_order")
    cancelled = await troubled.orders.cancel("kim", order.order_id, request_key("kim", "a-key", "cancel", b""))
    assert (cancelled.failure, cancelled.replayed, proxy.times_sent("cancel_order")) == ("cancelled", False, 2)
    assert await all_units(engine) == UNTOUCHED
    again = await troubled.orders.cancel("kim", order.order_id, request_key("kim", "a-key", "cancel", b""))
    assert (again.failure, again.replayed) == ("cancelled", True)
    count = await kinds(engine)
    assert (count["order.failed"], count["stock.released"]) == (1, 2)


@pytest.mark.requirement("R4.9")
@pytest.mark.parametrize("lost", ["issue_coupons", "grant_coupon"])
async def test_a_coupon_whose_reply_is_lost_is_issued_once_and_no_refusal(
    engine: Engine, troubled: Engine, proxy: Proxy, lost: str
) -> None:
    await engine.coupons.put_campaign(campaign())
    proxy.lose_reply(lost)
    coupon = await troubled.coupons.issue("kim", "spring")
    assert (coupon.issue_number, proxy.times_sent(lost)) == (1, 2)
    assert {position.partition for position in coupon.positions} == {
        engine.partitions.of("kim"), engine.partitions.of("spring"),
    }  # fmt: skip
    assert (await engine.coupons.read_campaign("spring")).issued == 1
    assert [held.coupon_id for held in await engine.coupons.list_coupons("kim")] == [coupon.coupon_id]


async def test_a_repetition_that_overtakes_what_a_frozen_server_was_sent_has_no_second_effect(
    engine: Engine, redis_process: ValkeyProcess
) -> None:
    """The server stops in the middle, its connections are dropped, and it goes on with what they had brought it."""
    users = [f"user-{number}" for number in range(5)]
    for user in users:
        await engine.wallets.charge(user, 10_000)
    one = lines(("shirt", "S", 1))
    redis_process.freeze()
    try:
        asked = [asyncio.ensure_future(engine.orders.checkout(user, one, None)) for user in users]
        await until(lambda: engine.lanes.identity(0) is None)
    finally:
        redis_process.thaw()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} <= {Order, Unavailable, OutcomeUnknown, TookTooLong}
    on_record = await orders_on_record(engine)
    paid = [order for order in on_record.values() if order["status"] == "completed"]
    assert len(paid) == len({order["user"] for order in paid})
    assert {outcome.order_id for outcome in outcomes if isinstance(outcome, Order)} <= on_record.keys()
    count = await kinds(engine)
    assert count.get("order.checked_out", 0) == len(paid)
    held = count.get("stock.reserved", 0) - count.get("stock.released", 0)
    assert (await all_units(engine))["shirt/S"] == (10 - held, held, 0)
    for user in users:
        bought = sum(order["user"] == user for order in paid)
        assert await engine.wallets.balance(user) == 10_000 - 1_000 * bought


async def test_a_refusal_after_an_unknown_outcome_is_final_though_the_original_comes_late(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    other: list[str] = []

    async def another_order() -> None:
        other.append((await engine.orders.place("kim", lines(("shirt", "S", 1)), None)).order_id)

    proxy.before("place_order", another_order)
    proxy.deliver_late("place_order")
    with pytest.raises(OrderInProgress) as refused:
        await troubled.orders.place("kim", TWO, None)
    assert [refused.value.order_id] == other
    await engine.orders.cancel("kim", other[0])
    assert await all_units(engine) == UNTOUCHED
    await proxy.deliver()
    record = await orders_on_record(engine)
    assert sorted(order["status"] for order in record.values()) == ["failed", "void"]
    assert (await engine.wallets.read("kim")).open_order is None


async def test_a_late_reservation_of_a_finished_order_holds_nothing(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    proxy.deliver_late("reserve_stock")
    order = await troubled.orders.place("kim", TWO, None)
    await troubled.orders.cancel("kim", order.order_id)
    await proxy.deliver()
    assert await all_units(engine) == UNTOUCHED


@pytest.mark.parametrize("trouble", [Overloaded("shed"), ServerError("OOM", "no memory")])
@pytest.mark.parametrize("action", ["place", "checkout"])
async def test_what_a_second_send_meets_does_not_make_an_unknown_outcome_known(
    redis_process: ValkeyProcess, engine: Engine, trouble: Exception, action: str
) -> None:
    class LosesThenFails(RedisLanes):
        def __init__(self) -> None:
            super().__init__(redis_process.url)
            self.sent = 0

        def call(self, partition: int, script: Script, keys: Any, arguments: Any, *, deadline: float) -> Any:
            return self._call(partition, script, keys, arguments, deadline)

        async def _call(self, partition: int, script: Script, keys: Any, arguments: Any, deadline: float) -> Any:
            if script.name in {"place_order", "checkout_order"}:
                self.sent += 1
                if self.sent > 1:
                    raise trouble
                await super().call(partition, script, keys, arguments, deadline=deadline)
                raise OutcomeUnknown
            return await super().call(partition, script, keys, arguments, deadline=deadline)

    lanes = LosesThenFails()
    await lanes.start()
    shed = Engine(engine.settings, lanes)
    shed.runner.test_now_ms = engine.runner.test_now_ms
    with pytest.raises(OutcomeUnknown) as unknown:
        await getattr(shed.orders, action)("kim", TWO, None)
    await lanes.close()
    assert unknown.value.order_id in await orders_on_record(engine)
    assert await all_units(engine) == HELD


async def test_a_recovery_between_reserving_and_placing_leaves_what_the_worker_can_undo(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    async def raise_generation() -> None:
        for partition in range(PARTITIONS):
            await engine.recovery.raise_generation(partition, 2)

    proxy.before("place_order", raise_generation)
    with pytest.raises(Recovering):
        await troubled.orders.place("kim", TWO, None)
    assert await all_units(engine) == HELD
    reserved = [event for event in await events(engine) if event["type"] == "stock.reserved"]
    order_id = reserved[0]["order"]
    assert await engine.orders.void("kim", order_id) == "void"
    for product in ("shirt", "hat"):
        reply = await engine.stock.release(engine.partitions.of(product), order_id, [product])
        assert reply.status == "released"
    assert await all_units(engine) == UNTOUCHED
    assert (await troubled.orders.place("kim", TWO, None)).status == "awaiting_payment"


async def test_a_flow_that_a_recovery_overtook_before_it_took_effect_begins_once_more(
    engine: Engine, troubled: Engine
) -> None:
    for partition in range(PARTITIONS):
        await engine.recovery.raise_generation(partition, 2)
    assert (await troubled.orders.checkout("kim", TWO, None)).status == "completed"
    assert (await troubled.wallets.charge("kim", 1)).balance == 7_501
    assert (await kinds(engine))["stock.reserved"] == 2


async def test_an_order_that_comes_too_late_to_its_user_is_not_placed_and_everything_is_given_back(
    engine: Engine, proxy: Proxy
) -> None:
    age_max_ms = 200
    url = await proxy.start()
    async with opened(url, fresh=False, now_ms=None, order_age_max_ms=age_max_ms) as slow:
        await slow.wallets.balance("kim")  # connected, so that only the placing is held up
        proxy.before("place_order", lambda: asyncio.sleep(2 * age_max_ms / 1000))
        with pytest.raises(TookTooLong):
            await slow.orders.place("kim", TWO, None)
    assert await all_units(engine) == UNTOUCHED
    assert await orders_on_record(engine) == {}


async def test_a_recovery_of_one_partition_of_the_cart_leaves_nothing_held(engine: Engine) -> None:
    await engine.wallets.balance("kim")
    await engine.recovery.raise_generation(engine.partitions.of("hat"), 2)
    with pytest.raises(Recovering):
        await engine.orders.place("kim", TWO, None)
    for partition in range(PARTITIONS):
        await engine.recovery.raise_generation(partition, 2)
    assert await all_units(engine) == UNTOUCHED
    assert await orders_on_record(engine) == {}


async def test_a_partition_that_is_not_trusted_is_neither_changed_nor_shown(engine: Engine) -> None:
    partition = engine.partitions.of("kim")
    await execute(engine, "HSET", engine.keys.meta(partition), "server", "another:server")
    for request in (
        engine.wallets.charge("kim", 1),
        engine.wallets.balance("kim"),
        engine.orders.checkout("kim", lines(("shirt", "S", 1)), None),
        engine.coupons.list_coupons("kim"),
    ):
        with pytest.raises(Recovering):
            await request
    if engine.partitions.of("shirt") != partition:
        assert (await all_units(engine))["shirt/S"] == (10, 0, 0)


async def test_new_work_is_refused_when_the_writer_is_behind_and_open_orders_can_be_finished(
    redis_process: ValkeyProcess,
) -> None:
    async with opened(redis_process.url, partitions=PARTITIONS, backlog_max=4, backlog_headroom=20) as engine:
        await stock_shop(engine)
        order = await engine.orders.place("kim", lines(("hat", None, 1)), None)
        while True:
            try:
                await engine.wallets.charge("kim", 1_000)
            except WriterBehind:
                break
        with pytest.raises(WriterBehind):
            await engine.orders.place("kim", lines(("hat", None, 1)), None)
        assert (await all_units(engine))["hat/one"] == (2, 1, 0)
        assert (await engine.payments.pay("kim", order.order_id)).status == "completed"


async def test_requests_at_once_share_a_lane_that_is_cut_and_none_has_two_effects(
    engine: Engine, troubled: Engine, proxy: Proxy
) -> None:
    await engine.catalog.adjust("shirt", "S", 1_000, "more")
    users = [f"u{number}" for number in range(40)]
    await asyncio.gather(*(engine.wallets.charge(user, 1_000) for user in users))
    proxy.lose_reply("checkout_order")
    proxy.lose_reply("reserve_stock")
    orders = await asyncio.gather(*(troubled.orders.checkout(user, lines(("shirt", "S", 1)), None) for user in users))
    assert {order.status for order in orders} == {"completed"}
    assert (await all_units(engine))["shirt/S"] == (970, 40, 0)
    assert set(await asyncio.gather(*(engine.wallets.balance(user) for user in users))) == {0}
