import asyncio
from collections import Counter

import pytest

from engine.catalog import NewStockItem
from engine.engine import Engine
from engine.errors import OutOfStock
from tests.concurrency.buyers import buy, in_processes
from tests.engine.shop import all_units, events, lines, opened, stock_shop, units
from tests.engine.valkey_process import ValkeyProcess


@pytest.mark.requirement("R0.3", "R0.4", "R0.5", "R3.11", "R2.4")
async def test_three_hundred_buyers_get_the_hundred_units_of_a_size_and_leave_nothing_held(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    await engine.catalog.put("shirt", "Shirt", 10, [NewStockItem("S", "", 100), NewStockItem("M", "", 1_000)])
    await engine.catalog.put("hat", "Hat", 5, [NewStockItem("one", "", 1_000)])
    users = [f"{kind}{number}" for number in range(300) for kind in "ab"]
    await asyncio.gather(*(engine.wallets.charge(user, 15) for user in users))
    said = await asyncio.to_thread(in_processes, buy, redis_process.url, [users[:300], users[300:]])
    assert said == Counter({"S completed": 100, "OutOfStock": 200, "M completed": 300})
    assert await units(engine, "shirt", "S") == (0, 100, 0)
    assert await units(engine, "shirt", "M") == (700, 300, 0)
    assert await units(engine, "hat", "one") == (600, 400, 0)
    balances = await asyncio.gather(*(engine.wallets.balance(user) for user in users))
    assert Counter(balances) == Counter({0: 400, 15: 200})
    reserved = Counter(event["type"] for event in await events(engine))
    assert reserved["order.checked_out"] == 400


@pytest.mark.requirement("R0.3", "R0.4", "R0.5")
async def test_two_carts_of_two_instances_that_hold_each_others_last_unit(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    await stock_shop(engine)
    await engine.catalog.adjust("shirt", "S", -9, "one left")
    await engine.catalog.adjust("hat", "one", -2, "one left")
    before = await all_units(engine)
    async with opened(redis_process.url, fresh=False) as other:
        await other.wallets.balance("warm")
        for _ in range(100):
            outcomes = await asyncio.gather(
                engine.orders.place("kim", lines(("shirt", "S", 1), ("hat", None, 1)), None),
                other.orders.place("lee", lines(("hat", None, 1), ("shirt", "S", 1)), None),
                return_exceptions=True,
            )
            won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            assert len(won) == 1
            assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {OutOfStock}
            await engine.orders.cancel(won[0].user_id, won[0].order_id)
            assert await all_units(engine) == before
